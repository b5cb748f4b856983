package blind

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// kind says what becomes of a slot.
type kind uint8

const (
	keep   kind = iota // nothing
	hidden             // mov AX, R^imm; xor AX, R; the instruction, with AX
	zero               // xor dst, dst
	upper              // mov AX, R^imm; xor AX, R; lsh AX, 32; mov dst, AX
	lower              // mov AX, R^imm; xor AX, R; or dst, AX

	numKinds
)

// sizes is how many slots each kind makes.
var sizes = [numKinds]int32{keep: 1, hidden: 3, zero: 1, upper: 4, lower: 3}

// rule is how the instructions of an opcode are rewritten.
type rule struct {
	kind kind
	move bool // zero if imm is 0
	some bool // only some forms of the opcode are rewritten

	// The opcodes that compute the constant, and the one that takes it
	// from AX.
	mov, xor, own uint8
}

// Opcodes that rewrites are made of.
var (
	mov32  = tables.Forms[tables.FormAlu32MovK].Op
	xor32  = tables.Forms[tables.FormAlu32XorK].Op
	mov64  = tables.Forms[tables.FormAlu64MovK].Op
	xor64  = tables.Forms[tables.FormAlu64XorK].Op
	lsh64  = tables.Forms[tables.FormAlu64LshK].Op
	movReg = tables.Forms[tables.FormAlu64MovX].Op
	orReg  = tables.Forms[tables.FormAlu64OrX].Op
	xorReg = tables.Forms[tables.FormAlu64XorX].Op
)

// rules are the rules of all opcodes, from the blind column of gen/bpf.txt.
var rules = func() (list [256]rule) {
	var kept [256]bool // some form is not rewritten
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		r, ok := ruleOf(form)
		if !ok {
			kept[form.Op] = true
			continue
		}
		if old := list[form.Op]; old.kind != keep && old != r {
			panic("BUG: " + form.Name + " is rewritten in another way than its opcode")
		}
		list[form.Op] = r
	}
	for op := range list {
		list[op].some = kept[op] && list[op].kind != keep
	}
	return list
}()

// ruleOf returns the rule of a form that has one. BlindSecond is none by
// itself: it goes with the first half.
func ruleOf(form *tables.FormInfo) (r rule, ok bool) {
	byRegister := form.Op | abi.SourceX
	switch form.Blind {
	case tables.BlindAlu32, tables.BlindJmp32:
		return rule{kind: hidden, mov: mov32, xor: xor32, own: byRegister}, true
	case tables.BlindAlu64, tables.BlindJmp64:
		return rule{kind: hidden, mov: mov64, xor: xor64, own: byRegister}, true
	case tables.BlindMov32:
		return rule{kind: hidden, move: true, mov: mov32, xor: xor32, own: byRegister}, true
	case tables.BlindMov64:
		return rule{kind: hidden, move: true, mov: mov64, xor: xor64, own: byRegister}, true
	case tables.BlindStore:
		return rule{kind: hidden, mov: mov64, xor: xor64, own: form.Op | abi.ClassSTX}, true
	case tables.BlindImm64:
		return rule{kind: upper, mov: mov64, xor: xor64, own: movReg}, true
	}
	return rule{}, false
}

// applies reports whether the instruction has a form that is rewritten, where
// not all forms of its opcode are.
func applies(in bpf.Insn) bool {
	f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
	return tables.Forms[f].Blind != tables.BlindNone
}
