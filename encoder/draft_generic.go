//go:build !amd64 || purego

package encoder

func (d *Draft) begin() {}

func (d *Draft) release() { d.insns = nil }

func (d *Draft) extend(stop int) bool { return d.extendGeneric(stop) }

func (d *Draft) isShort() bool { return false }

func (j *Joint) joinShort() bool { return false }

func (j *Joint) extend(stop int) { j.extendGeneric(stop) }

// These are for assembly.
type (
	//lint:ignore U1000 of the assembly
	tablesOfAll struct{}
	writeJob    struct{}
)
