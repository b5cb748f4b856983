package bpf

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Func is a function of a program: the slots from Start up to, not
// including, End.
type Func struct {
	Start, End int
	// Calls lists the calls of functions of this program, in order.
	Calls []Call
	// Refs lists the constants that take the address of a function.
	Refs []Call
}

// Call is an instruction that refers to a function of the program.
type Call struct {
	Slot   int // of the instruction
	Callee int // index of the function
}

// Distance returns how far an instruction leads, in slots from the next one,
// if it is a branch, a jump, a call of a function of its program, or a
// constant that takes the address of one. Calls of a translated program have
// the callee's number instead of a distance; they don't count.
func Distance(i Insn) (d int32, ok bool) {
	d, _, ok = distance(i)
	return d, ok
}

// leads marks the opcodes of which some form has a distance.
var leads = func() (t [256]bool) {
	for f := range tables.Forms {
		form := &tables.Forms[f]
		if form.Off.Use == tables.UseDistance || form.Imm.Use == tables.UseDistance {
			t[form.Op] = true
		}
	}
	return t
}()

// distance also returns the form of an instruction that has a distance.
func distance(i Insn) (d int32, form *tables.FormInfo, ok bool) {
	if !leads[i.Op] {
		return 0, nil, false
	}
	f, ok := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
	if !ok {
		return 0, nil, false
	}
	form = &tables.Forms[f]
	switch {
	case form.Off.Use == tables.UseDistance:
		return int32(i.Off), form, true
	case form.Imm.Use == tables.UseDistance && (form.Off.Use != tables.UseTranslated || i.Off == 0):
		return i.Imm, form, true
	}
	return 0, nil, false
}

// toFunction reports whether the distance of a form leads to a function and
// not to another place in the same one.
func toFunction(form *tables.FormInfo) bool {
	return form.Flow != tables.FlowBranch && form.Flow != tables.FlowJump
}

// Functions finds the functions of a source program. The main program is the
// first; others begin where a call or an address constant leads, and end
// where the next one begins. The error is an *Error that names a call that
// leads nowhere.
func Functions(p *Program) ([]Func, error) {
	n := len(p.Insns)
	if n == 0 {
		return nil, nil
	}
	// number[i] is 1 + the index of the function that begins at slot i. In
	// the first walk 1 marks a beginning.
	number := make([]int32, n)
	number[0] = 1
	inner := false // the slot is the second half of a constant
	linked := false
	for i, insn := range p.Insns {
		if inner {
			inner = false
			continue
		}
		inner = insn.Op == abi.OpLdImm64
		d, form, ok := distance(insn)
		if !ok || !toFunction(form) {
			continue
		}
		t := int64(i) + 1 + int64(d)
		if t < 0 || t >= int64(n) {
			return nil, &Error{Slot: i, Insn: insn, Field: "imm", Reason: fmt.Sprintf("leads to slot %d, outside of the program", t)}
		}
		number[t] = 1
		linked = true
	}
	if !linked {
		return []Func{{Start: 0, End: n}}, nil
	}
	var funcs []Func
	for i := range number {
		if number[i] != 0 {
			if len(funcs) > 0 {
				funcs[len(funcs)-1].End = i
			}
			funcs = append(funcs, Func{Start: i, End: n})
			number[i] = int32(len(funcs))
		}
	}
	return funcs, link(p, funcs, number)
}

// link fills in Calls and Refs, and sees to it that no function begins in the
// middle of a constant.
func link(p *Program, funcs []Func, number []int32) error {
	f := -1
	inner := false
	var cut []int // functions that begin in the middle of a constant
	for i, insn := range p.Insns {
		if number[i] != 0 {
			f++
		}
		if inner {
			inner = false
			if number[i] != 0 {
				cut = append(cut, i)
			}
			continue
		}
		inner = insn.Op == abi.OpLdImm64
		d, form, ok := distance(insn)
		if !ok || !toFunction(form) {
			continue
		}
		c := Call{Slot: i, Callee: int(number[i+1+int(d)]) - 1}
		if form.Flow == tables.FlowCall {
			funcs[f].Calls = append(funcs[f].Calls, c)
		} else {
			funcs[f].Refs = append(funcs[f].Refs, c)
		}
	}
	if cut == nil {
		return nil
	}
	for i := range funcs {
		for _, c := range append(funcs[i].Calls, funcs[i].Refs...) {
			if funcs[c.Callee].Start == cut[0] {
				return &Error{Slot: c.Slot, Insn: p.Insns[c.Slot], Field: "imm",
					Reason: fmt.Sprintf("leads into the 64-bit constant of slot %d", cut[0]-1)}
			}
		}
	}
	panic("BUG: a function that nobody refers to")
}
