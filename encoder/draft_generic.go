//go:build !amd64 || purego

package encoder

func (d *Draft) begin() {}

func (d *Draft) extend(stop int) bool { return d.extendGeneric(stop) }

func (d *Draft) join(code []byte, at int, gaps []Gap, ends []uint32) {
	d.joinGeneric(code, at, gaps, ends)
}

// scratch and writeJob are for assembly.
type (
	//lint:ignore U1000 of the assembly
	scratch  struct{}
	writeJob struct{}
)
