package bpf

import "github.com/bpfjit/bpfjit/abi"

// Insn is one 8-byte slot of a program.
type Insn = abi.Insn

// Flag marks a slot of a program.
type Flag uint8

const (
	// Inserted marks an instruction that the author did not write. It costs
	// no budget and blinding trusts it.
	Inserted Flag = 1 << iota
	// Probe marks a load whose fault reads as zero. Only loaders set it.
	Probe
)

// Program is a sequence of slots. The first function is the main program;
// functions that it calls follow. A Program is a value to hand on: stages
// that change one return a new one.
type Program struct {
	Insns []Insn
	// Flags has one entry a slot, or is nil: no slot is marked.
	Flags []Flag
	// Origin is the source slot of each slot, or is nil: the program is as
	// its author wrote it. An inserted slot has the origin of the
	// instruction that it was inserted for.
	Origin []int32
}

// Flag returns the marks of slot i.
func (p *Program) Flag(i int) Flag {
	if p.Flags == nil {
		return 0
	}
	return p.Flags[i]
}

// Source returns the source slot of slot i.
func (p *Program) Source(i int) int {
	if p.Origin == nil {
		return i
	}
	return int(p.Origin[i])
}
