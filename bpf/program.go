package bpf

import (
	"fmt"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
)

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
	// Index, if there is one, says that each slot of an older program became one
	// or more: slot i became those from Index[i] up to Index[i+1]. Origin then
	// has an entry for each slot of the older program.
	Index []int32
}

// Flag returns the marks of slot i.
func (p *Program) Flag(i int) Flag {
	if p.Flags == nil {
		return 0
	}
	return p.Flags[i]
}

// Source returns the source slot of slot i. If the program has an Index, it takes
// time in proportion to the logarithm of the slots.
func (p *Program) Source(i int) int {
	if p.Index != nil {
		i = sort.Search(len(p.Index)-1, func(k int) bool { return int(p.Index[k+1]) > i })
	}
	if p.Origin == nil {
		return i
	}
	return int(p.Origin[i])
}

// Moved reports whether slots are elsewhere than their source slots.
func (p *Program) Moved() bool { return p.Origin != nil || p.Index != nil }

// Flat returns p without an Index: itself, or a copy with origins of its own.
func (p *Program) Flat() *Program {
	if p.Index == nil {
		return p
	}
	origin, i := make([]int32, len(p.Insns)), 0
	for k := range len(p.Index) - 1 {
		source := int32(k)
		if p.Origin != nil {
			source = p.Origin[k]
		}
		for end := min(int(p.Index[k+1]), len(origin)); i < end; i++ {
			origin[i] = source
		}
	}
	return &Program{Insns: p.Insns, Flags: p.Flags, Origin: origin}
}

// CheckSizes tells whether p's lists are as long as they should be, as Check does.
// The error is an *Error without a slot.
func (p *Program) CheckSizes() error {
	if p.Flags != nil || p.Moved() {
		return p.checkSizes()
	}
	return nil
}

// checkSizes does it where there are lists.
func (p *Program) checkSizes() error {
	n := len(p.Insns)
	if p.Flags != nil && len(p.Flags) != n {
		return &Error{Slot: -1, Reason: fmt.Sprintf("has %d flags for %d slots", len(p.Flags), n)}
	}
	older := n
	if p.Index != nil {
		older = len(p.Index) - 1
		if older < 0 || int(p.Index[older]) != n {
			return &Error{Slot: -1, Reason: fmt.Sprintf("has an index that doesn't fit %d slots", n)}
		}
	}
	if p.Origin != nil && len(p.Origin) != older {
		return &Error{Slot: -1, Reason: fmt.Sprintf("has %d origins for %d slots", len(p.Origin), older)}
	}
	return nil
}
