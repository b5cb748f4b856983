//go:build linux && amd64 && !purego && race

package machine

// Dash is Try, Enter with R1 and R2 zero, and End, as far as that goes. Code is
// entered only if key is the Frame's, see SetKey.
func (f *Frame) Dash(key uintptr) (r0 uint64, way Way) {
	if !f.Try() {
		return 0, Refused
	}
	if key != f.key {
		return 0, Taken
	}
	if !f.Enter(0, 0) {
		return 0, Left
	}
	r0 = f.R0()
	f.used = f.Used()
	if f.dirty != 0 {
		return r0, Ended
	}
	f.End()
	return r0, Over
}
