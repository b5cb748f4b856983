//go:build !amd64 || purego

package encoder

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

func (d *Draft) write(profile tables.Profile, insns []abi.Insn, frame bool) bool {
	return d.writeGeneric(profile, insns, frame)
}

func (d *Draft) join(code []byte, at int, gaps []Gap, ends []uint32) {
	d.joinGeneric(code, at, gaps, ends)
}

// scratch is for assembly.
//
//lint:ignore U1000 of the assembly
type scratch struct{}
