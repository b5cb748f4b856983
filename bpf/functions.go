package bpf

import (
	"fmt"
	"math/bits"

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
	s := surveyOf(p)
	defer s.release()
	return s.Functions()
}

// Functions finds the functions of the program, see the function Functions.
func (s *Survey) Functions() ([]Func, error) {
	p := s.Program()
	n := len(p.Insns)
	if n == 0 {
		return nil, nil
	}
	links := s.links()
	if len(links) == 0 {
		return []Func{{Start: 0, End: n}}, nil
	}
	// number[i] is 1 + the index of the function that begins at slot i. At
	// first 1 marks a beginning.
	number := make([]int32, n)
	number[0] = 1
	h := halves{insns: p.Insns}
	linked := links[:0] // those that lead somewhere
	for _, i := range links {
		insn := p.Insns[i]
		d, _, ok := distance(insn)
		if !ok || h.second(int(i)) {
			continue
		}
		t := int64(i) + 1 + int64(d)
		if t < 0 || t >= int64(n) {
			return nil, &Error{Slot: int(i), Insn: insn, Field: "imm", Reason: fmt.Sprintf("leads to slot %d, outside of the program", t)}
		}
		number[t] = 1
		linked = append(linked, i)
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
	return funcs, link(p, funcs, number, linked)
}

// links lists the slots that may lead to functions. They are few.
func (s *Survey) links() (list []int32) {
	for b := range s.blocks {
		for set := s.blocks[b].others; set != 0; set &= set - 1 {
			slot := b*blockSlots + bits.TrailingZeros64(set)
			if op := s.program.Insns[slot].Op; op == abi.OpCall || op == abi.OpLdImm64 {
				list = append(list, int32(slot))
			}
		}
	}
	return list
}

// halves tells second halves of constants from other slots, in programs that
// nobody has checked: what follows a first half is a second one, whatever it
// looks like.
type halves struct {
	insns []Insn
	// known is a slot that isn't a second half.
	known int
}

// second reports whether a slot is a second half. Slots are asked for in
// order, so that time goes with the slots even if many look like first halves.
func (h *halves) second(slot int) bool {
	at := slot
	for at > h.known && h.insns[at-1].Op == abi.OpLdImm64 {
		at--
	}
	second := (slot-at)%2 != 0
	h.known = slot
	if second {
		h.known--
	}
	return second
}

// link fills in Calls and Refs, and sees to it that no function begins in the
// middle of a constant.
func link(p *Program, funcs []Func, number, linked []int32) error {
	f := 0
	for _, i := range linked {
		for int(i) >= funcs[f].End {
			f++
		}
		d, form, _ := distance(p.Insns[i])
		c := Call{Slot: int(i), Callee: int(number[int(i)+1+int(d)]) - 1}
		if form.Flow == tables.FlowCall {
			funcs[f].Calls = append(funcs[f].Calls, c)
		} else {
			funcs[f].Refs = append(funcs[f].Refs, c)
		}
	}
	h := halves{insns: p.Insns}
	var cut []int // functions that begin in the middle of a constant
	for i := range funcs {
		if start := funcs[i].Start; h.second(start) {
			cut = append(cut, start)
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
