package bpf

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// quick reports whether Check accepts a program of the right size. It may say
// no of a program that is well-formed: exact decides then.
//
// A program is in order if each slot is, but for what the order of slots says:
// halves of constants stand in pairs, and distances lead to instructions. What
// a slot is can't be foreseen, and a branch foreseen wrongly costs as much as
// ten slots. So a first loop over a block has no branch that depends on the
// slot: it looks for bits that the opcode refuses, and lists the slots that
// have some. Marked like that are also the slots that are in order only if
// another one is. A second loop goes over the list, and all that it asks has
// nearly always the same answer.
func (c *checker) quick() bool {
	w := quickWalk{c: c, t: &refusals[c.dialect]}
	n := len(c.p.Insns)
	for start := 0; start < n; start += quickBlock {
		if !w.block(start, min(start+quickBlock, n)) {
			return false
		}
	}
	for slot, f := range c.p.Flags {
		if f&Probe != 0 && c.slot(slot) != nil {
			return false
		}
	}
	return c.linked(&w)
}

// linked checks what quick's loops have put off.
func (c *checker) linked(w *quickWalk) bool {
	whole := Func{Start: 0, End: len(c.p.Insns)}
	if !w.links {
		return c.ends(whole) && (!w.far || c.function(whole) == nil)
	}
	funcs, err := Functions(c.p)
	if err != nil {
		return false
	}
	for _, f := range funcs {
		if !w.within(f) || !c.ends(f) || w.far && c.function(f) != nil {
			return false
		}
	}
	return checkNesting(c.p, funcs) == nil
}

// within reports whether no distance in off leads out of a function.
func (w *quickWalk) within(f Func) bool {
	outside := 0
	for i := f.Start; i < f.End; i++ {
		in := &w.c.p.Insns[i]
		to := i + (int(in.Off)+1)&int(w.t.jumps[in.Op])
		outside |= (to - f.Start) | (f.End - 1 - to) // negative
	}
	return outside >= 0
}

// quickBlock is how many slots quick goes over at a time: as many as a byte
// counts.
const quickBlock = 256

// quickWalk is what quick's loops find out.
type quickWalk struct {
	c *checker
	t *refusal
	// far is set if there is a distance of 32 bits within a function, links
	// if there is one to a function.
	far, links bool
}

// refusal says what a slot of a dialect must not have. Of each opcode it knows
// one form, the one whose numbers that select are 0.
//
// A slot is in order if of these two words no bit is left:
//
//	in.Imm & imm[op]
//	(in.Off ^ flip[op]) & rest[op] & classes[row[op]+in.Regs]
//
// The lower half of the second word is about off, where flip has the bits that
// must be 1. The upper half, of which flip sets all bits, is about classes of
// registers. Off counts in three ways, and classes has a row for each:
//
//   - in any case, by a mask
//   - if dst is R10, or if src is: then it is an address in the frame. To lie
//     within it, off must be negative, not below -512, and a multiple of the
//     size, or it gets a second look.
type refusal struct {
	imm, flip, rest, row [256]uint32
	classes              [4 * 256]uint32 // the last row is not in use
	// jumps is -1 for opcodes with a distance in off, else 0. steps is what
	// leads to the slot to look at besides. It must not be of the kinds that
	// the opcode refuses.
	jumps         [256]int16
	steps         [256]int8
	kinds, refuse [256]uint8
}

// Rows of refusal.classes.
const (
	offCounts = 256 * iota
	offByDst
	offBySrc
)

// Classes of registers.
const (
	noRegister = 1 << (16 + iota) // one of them doesn't exist in the dialect
	dstSet                        // dst isn't 0
	srcSet                        // src isn't 0
	dstFrame                      // dst is R10
	srcFrame                      // src is R10
	always                        // whatever they are: for a second look
	odd                           // whatever they are: no form is known
)

// Kinds of opcode.
const (
	kindOrdinary = 1 << iota
	kindFirst    // ldimm64
	kindSecond   // its second half
)

// ofImm and ofRest return the bits that are left of the two words.
func (t *refusal) ofImm(in *Insn) uint32 { return uint32(in.Imm) & t.imm[in.Op] }

func (t *refusal) ofRest(in *Insn) uint32 {
	op := in.Op
	return (uint32(uint16(in.Off)) ^ t.flip[op]) & t.rest[op] & t.classes[(t.row[op]+uint32(in.Regs))%uint32(len(t.classes))]
}

// known reports whether a slot is in order, if on second look it is.
func (t *refusal) known(in *Insn) bool { return t.ofImm(in) == 0 && t.ofRest(in) == always }

// block checks the slots from start up to end.
func (w *quickWalk) block(start, end int) bool {
	var list [quickBlock]uint8
	n := 0
	t := w.t
	add := func(i int, in *Insn) {
		list[uint8(n)] = uint8(i)
		if t.ofImm(in)|t.ofRest(in) != 0 {
			n++
		}
	}
	insns := w.c.p.Insns[start:end]
	for len(insns) >= 4 {
		four := (*[4]Insn)(insns)
		i := end - start - len(insns)
		add(i, &four[0])
		add(i+1, &four[1])
		add(i+2, &four[2])
		add(i+3, &four[3])
		insns = insns[4:]
	}
	for k := range insns {
		add(end-start-len(insns)+k, &insns[k])
	}
	for rest := list[:n]; ; rest = rest[1:] {
		done := w.fine(rest, start)
		if rest = rest[done:]; len(rest) == 0 {
			return true
		}
		if i := start + int(rest[0]); t.known(&w.c.p.Insns[i]) || !w.odd(i) {
			return false
		}
	}
}

// fine returns how many of the listed slots are in order on second look.
func (w *quickWalk) fine(list []uint8, start int) int {
	t, insns := w.t, w.c.p.Insns
	for k := range list {
		i := start + int(list[k])
		in := &insns[i]
		to := i + int(t.steps[in.Op]) + int(in.Off&t.jumps[in.Op])
		if !t.known(in) || uint(to) >= uint(len(insns)) || t.kinds[insns[to].Op]&t.refuse[in.Op] != 0 {
			return k
		}
	}
	return len(list)
}

// odd checks a slot that doesn't have the form that quick knows.
func (w *quickWalk) odd(slot int) bool {
	if w.c.slot(slot) != nil {
		return false
	}
	in := &w.c.p.Insns[slot]
	f := form(*in)
	w.far = w.far || f.Op == abi.OpGotol
	w.links = w.links || f.Imm.Use == tables.UseDistance && f.Flow != tables.FlowJump && w.c.dialect == Source
	return in.Op != abi.OpLdImm64 || slot+1 < len(w.c.p.Insns) && w.c.slot(slot+1) == nil
}

// refusals are those of both dialects.
var refusals = [2]refusal{Source: refusalOf(Source), Translated: refusalOf(Translated)}

func refusalOf(d Dialect) (t refusal) {
	most := uint8(abi.R10)
	if d == Translated {
		most = abi.AX
	}
	for regs := range 256 {
		dst, src := uint8(regs&15), uint8(regs>>4)
		class := uint32(always | odd)
		for _, is := range []struct {
			class uint32
			yes   bool
		}{
			{noRegister, dst > most || src > most},
			{dstSet, dst != 0}, {srcSet, src != 0},
			{dstFrame, dst == abi.R10}, {srcFrame, src == abi.R10},
		} {
			if is.yes {
				class |= is.class
			}
		}
		t.classes[offCounts+regs] = class | allOff
		t.classes[offByDst+regs] = class
		if dst == abi.R10 {
			t.classes[offByDst+regs] |= allOff
		}
		t.classes[offBySrc+regs] = class
		if src == abi.R10 {
			t.classes[offBySrc+regs] |= allOff
		}
	}
	for op := range 256 {
		t.flip[op], t.rest[op] = ^uint32(allOff), odd
		t.steps[op], t.kinds[op] = 1, kindOrdinary
	}
	t.kinds[abi.OpLdImm64] = kindFirst
	t.kinds[opSecond] = kindSecond
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		c := checker{dialect: d}
		if c.support(form) == tables.Allowed && tables.Matches[f].Value == uint64(form.Op) && form.Op != abi.OpGotol {
			t.know(d, form)
		}
	}
	return t
}

const allOff = 1<<16 - 1

var opSecond = tables.Forms[tables.FormLdSecond].Op

// know enters the form of an opcode.
func (t *refusal) know(d Dialect, form *tables.FormInfo) {
	op := form.Op
	rest := uint32(noRegister)
	if form.Imm.Fixed() {
		t.imm[op] = 1<<32 - 1
	}
	if form.Off.Fixed() || form.Off.Use == tables.UseTranslated && d == Source {
		rest |= allOff
	}
	for _, r := range []struct {
		tables.Operand
		set, frame, row uint32
	}{{form.Dst, dstSet, dstFrame, offByDst}, {form.Src, srcSet, srcFrame, offBySrc}} {
		switch {
		case r.Fixed():
			rest |= r.set
		case r.Writes():
			rest |= r.frame
		case r.Use == tables.UseAddress && d == Source:
			const negative = allOff &^ (abi.FrameBytes - 1)
			t.flip[op] |= negative
			rest |= negative | uint32(abi.AccessSize(op)-1)
			t.row[op] = r.row
		}
	}
	switch {
	case form.Off.Use == tables.UseDistance:
		t.jumps[op], t.refuse[op] = -1, kindSecond
	case op == abi.OpLdImm64:
		t.refuse[op] = kindOrdinary | kindFirst
	case op == opSecond:
		t.steps[op], t.refuse[op] = -1, kindOrdinary|kindSecond
	}
	if t.refuse[op] != 0 {
		rest |= always
	}
	t.rest[op] = rest
}
