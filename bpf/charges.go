package bpf

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Charges says where a checked source program pays for what it executes, and
// how much. The result has one entry a slot: n > 0 means that n is taken from
// the budget before the instruction, 0 that nothing is.
//
// Charge points are the beginnings of functions and the targets of backward
// jumps, so that no cycle and no call is without one. n is the number of
// instructions on the longest way from the point up to the next charge point
// or an EXIT; a 64-bit constant counts as one, a call as one, since the
// function called pays for itself. The budget used is thus never less than
// the number of instructions executed.
//
// One walk backward suffices: a way ends where it jumps backward, since that
// is a charge point, so what is behind an instruction on a way also stands
// behind it in the program.
func Charges(p *Program) []int32 {
	n := len(p.Insns)
	const point = -1
	charges := make([]int32, n)
	if n == 0 {
		return charges
	}
	charges[0] = point
	second := false
	for i, insn := range p.Insns {
		if second {
			second = false
			continue
		}
		second = insn.Op == abi.OpLdImm64
		if d, form, ok := distance(insn); ok && (toFunction(form) || d < 0) {
			charges[i+1+int(d)] = point
		}
	}
	// longest[i] is the number of instructions on the longest way from slot
	// i, itself included.
	longest := make([]int32, n)
	behind := func(slot int) int32 {
		if slot == n || charges[slot] != 0 {
			return 0
		}
		return longest[slot]
	}
	for i := n - 1; i >= 0; i-- {
		insn := p.Insns[i]
		width := 1
		if insn.Op == abi.OpLdImm64 {
			width = 2
		}
		var way int32
		flow := tables.FlowNext
		if class := insn.Op & abi.ClassMask; class == abi.ClassJMP || class == abi.ClassJMP32 {
			flow = form(insn).Flow
		}
		if flow != tables.FlowJump && flow != tables.FlowExit {
			way = behind(i + width)
		}
		if flow == tables.FlowJump || flow == tables.FlowBranch {
			d, _ := Distance(insn)
			way = max(way, behind(i+1+int(d)))
		}
		longest[i] = 1 + way
		if charges[i] != 0 {
			charges[i] = longest[i]
		}
	}
	return charges
}
