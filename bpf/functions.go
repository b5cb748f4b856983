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
// where the next one begins. The error is an *Error that names a call, or an
// address constant, that leads nowhere.
func Functions(p *Program) ([]Func, error) {
	s := surveyOf(p)
	defer s.release()
	return new(functions).find(s)
}

// Functions finds the functions of the program, see the function Functions.
// They are good until s is used for another program.
func (s *Survey) Functions() ([]Func, error) {
	if s.Program(); s.functions.known {
		return s.functions.list, nil
	}
	list, err := s.functions.find(s)
	s.functions.known = err == nil
	return list, err
}

// functions finds functions, in memory that it uses again.
type functions struct {
	known  bool // what list has is what a survey asks for
	list   []Func
	links  []int32
	starts []startBlock
	calls  []Call // of all functions, one function behind the other
	refs   []Call
	deep   []int8 // see nesting
}

// startBlock says where functions begin in 64 slots.
type startBlock struct {
	bits   uint64 // a bit for each slot where one does
	before int32  // how many functions begin in front of the block
}

// number returns the number of the function that begins at a slot.
func (f *functions) number(slot int) int {
	b := &f.starts[slot/blockSlots]
	return int(b.before) + bits.OnesCount64(b.bits&(1<<(slot%blockSlots)-1))
}

func (f *functions) find(s *Survey) ([]Func, error) {
	p := s.Program()
	n := len(p.Insns)
	f.list = f.list[:0]
	if n == 0 {
		return nil, nil
	}
	f.links = s.appendLinks(f.links[:0])
	if len(f.links) == 0 {
		f.list = append(f.list, Func{Start: 0, End: n})
		return f.list, nil
	}
	f.starts = resize(f.starts, len(s.blocks))
	clear(f.starts)
	f.starts[0].bits = 1
	h := halves{insns: p.Insns}
	linked := f.links[:0] // those that lead somewhere
	for _, i := range f.links {
		insn := p.Insns[i]
		d, _, ok := distance(insn)
		if !ok || h.second(int(i)) {
			continue
		}
		t := int64(i) + 1 + int64(d)
		if t < 0 || t >= int64(n) {
			return nil, &Error{Slot: int(i), Insn: insn, Field: "imm", Reason: fmt.Sprintf("leads to slot %d, outside of the program", t)}
		}
		f.starts[t/blockSlots].bits |= 1 << (t % blockSlots)
		linked = append(linked, i)
	}
	f.links = linked
	for k := range f.starts {
		b := &f.starts[k]
		b.before = int32(len(f.list))
		for set := b.bits; set != 0; set &= set - 1 {
			start := k*blockSlots + bits.TrailingZeros64(set)
			if len(f.list) > 0 {
				f.list[len(f.list)-1].End = start
			}
			f.list = append(f.list, Func{Start: start, End: n})
		}
	}
	return f.list, f.link(p)
}

// appendLinks appends the slots that may lead to functions.
func (s *Survey) appendLinks(list []int32) []int32 {
	for _, o := range s.others {
		if o.Insn.Op == abi.OpCall || o.Insn.Op == abi.OpLdImm64 {
			list = append(list, o.Slot)
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
func (f *functions) link(p *Program) error {
	// Neither moves when it grows.
	f.calls, f.refs = resize(f.calls, len(f.links))[:0], resize(f.refs, len(f.links))[:0]
	links := f.links
	for k := range f.list {
		of := &f.list[k]
		calls, refs := len(f.calls), len(f.refs)
		for ; len(links) > 0 && int(links[0]) < of.End; links = links[1:] {
			slot := int(links[0])
			d, form, _ := distance(p.Insns[slot])
			c := Call{Slot: slot, Callee: f.number(slot + 1 + int(d))}
			if form.Flow == tables.FlowCall {
				f.calls = append(f.calls, c)
			} else {
				f.refs = append(f.refs, c)
			}
		}
		of.Calls, of.Refs = part(f.calls, calls), part(f.refs, refs)
	}
	h := halves{insns: p.Insns}
	cut := -1 // the first function that begins in the middle of a constant
	for _, of := range f.list {
		if h.second(of.Start) && cut < 0 {
			cut = of.Start
		}
	}
	if cut < 0 {
		return nil
	}
	for _, of := range f.list {
		for _, list := range [][]Call{of.Calls, of.Refs} {
			for _, c := range list {
				if f.list[c.Callee].Start == cut {
					return &Error{Slot: c.Slot, Insn: p.Insns[c.Slot], Field: "imm",
						Reason: fmt.Sprintf("leads into the 64-bit constant of slot %d", cut-1)}
				}
			}
		}
	}
	panic("BUG: a function that nobody refers to")
}

// part returns what list has from an element on, or nil.
func part(list []Call, from int) []Call {
	if from == len(list) {
		return nil
	}
	return list[from:len(list):len(list)]
}

// MoveFunctions returns the functions of the patched program, if those of the
// program were funcs: a call is still one, and the last instruction of its patch if
// it has one, and a function that it leads to begins with what Enter patches insert.
// They are good until r is used again.
func (r *Patched) MoveFunctions(funcs []Func) []Func {
	return r.moved.move(funcs, &entries{r.Index, r.patcher.enter})
}

// MovedFuncs has the functions of a rewritten program, in memory that it uses
// again.
type MovedFuncs struct {
	list  []Func
	calls []Call
}

// Move returns the functions of a program whose slot i became the slots from
// index[i] on, and its own instruction the one in front of index[i+1]; the index
// has one more element for the end. Before, they were funcs.
func (m *MovedFuncs) Move(funcs []Func, index []int32) []Func {
	return m.move(funcs, &entries{index: index})
}

func (m *MovedFuncs) move(funcs []Func, e *entries) []Func {
	links := 0
	for i := range funcs {
		links += len(funcs[i].Calls) + len(funcs[i].Refs)
	}
	m.list = append(m.list[:0], funcs...)
	m.calls = resize(m.calls, links)[:0] // doesn't move any more
	end := int(e.index[len(e.index)-1])
	for i := len(funcs) - 1; i >= 0; i-- {
		f := &m.list[i]
		f.Start, f.End = e.entered(f.Start), end
		f.Calls, f.Refs = m.moveCalls(f.Calls, e), m.moveCalls(f.Refs, e)
		end = f.Start
	}
	return m.list
}

// moveCalls returns where calls are now.
func (m *MovedFuncs) moveCalls(calls []Call, e *entries) []Call {
	first := len(m.calls)
	for _, c := range calls {
		// Nothing stands between an instruction and what enters the next one.
		m.calls = append(m.calls, Call{Slot: e.entered(c.Slot+1) - 1, Callee: c.Callee})
	}
	return part(m.calls, first)
}
