//go:build !(linux && amd64 && !purego && !race)

package machine

// Try takes the Turn if it is free.
func (t *Turn) Try() bool { return t.holder.CompareAndSwap(0, settled) }

//lint:ignore U1000 where signals are handled
func allowOwners() {}

// End gives the Turn back, which the caller has.
func (t *Turn) End() { t.holder.Store(0) }
