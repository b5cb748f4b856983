package bpf

import (
	"math/bits"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// quick reports whether Check accepts a program, which it surveys. It may say no of
// a program that is well-formed: exact decides then.
//
// A program is in order if each slot is, but for what the order of slots says:
// halves of constants stand in pairs, and distances lead to instructions. What
// a slot is can't be foreseen, and a branch foreseen wrongly costs as much as
// ten slots. So a survey looks at all slots without a branch, and what it can't
// tell by looking at the bits of one slot it lists, or marks as suspect. All
// that is asked about those has nearly always the same answer.
func (s *Survey) quick(p *Program, d Dialect) bool {
	if uint(len(p.Insns)-1) >= MaxSlots || (p.Flags != nil || p.Moved()) && p.checkSizes() != nil {
		return false
	}
	s.begin(p)
	s.dialect = d
	if r := &refusals[d]; !s.assembled(r) {
		s.part(r)
	}
	switch {
	case s.astray || s.suspects && !s.acquits(0):
		return false
	case s.landed < len(s.blocks) && !s.rest():
		return false
	case p.Flags != nil && !s.probes():
		return false
	}
	switch p.Insns[len(p.Insns)-1].Op {
	case abi.OpLdImm64:
		return false
	case abi.OpExit:
		if s.kinds&(Gotols|Links) == 0 {
			return true // of one function
		}
	}
	return s.linked()
}

// rest goes over what is behind the first part, which is all of most programs.
func (s *Survey) rest() bool {
	for s.landed < len(s.blocks) {
		s.makeRoom(0)
		next, r := s.looked, &refusals[s.dialect]
		if !s.assembled(r) {
			s.part(r)
		}
		if s.astray || s.suspects && !s.acquits(next) {
			return false
		}
	}
	return true
}

// acquits checks the slots that a survey couldn't tell about, of the blocks from next on
// that were looked at.
func (s *Survey) acquits(next int) bool {
	for k := next; k < s.looked; k++ {
		for set := s.blocks[k].suspects; set != 0; set &= set - 1 {
			if !s.suspect(k*blockSlots + bits.TrailingZeros64(set)) {
				return false
			}
		}
	}
	return true
}

// suspect checks a slot.
func (s *Survey) suspect(slot int) bool {
	c := s.checker()
	if c.slot(slot) != nil {
		return false
	}
	// What the first half of a constant is, its second half depends on.
	return s.program.Insns[slot].Op != abi.OpLdImm64 || c.slot(slot+1) == nil
}

// checker returns one for what quick can't tell.
func (s *Survey) checker() checker { return checker{p: s.program, dialect: s.dialect} }

// probes checks what is marked as a fault-tolerant load.
func (s *Survey) probes() bool {
	c := s.checker()
	for slot, f := range s.program.Flags {
		if f&Probe != 0 && c.slot(slot) != nil {
			return false
		}
	}
	return true
}

// linked checks what depends on where functions begin and end.
func (s *Survey) linked() bool {
	c, p := s.checker(), s.program
	whole := Func{Start: 0, End: len(p.Insns)}
	far := s.kinds&Gotols != 0
	if s.kinds&Links == 0 || s.dialect != Source {
		return c.ends(whole) && (!far || c.function(whole) == nil)
	}
	funcs, err := s.Functions()
	if err != nil || !s.within(funcs) {
		return false
	}
	for _, f := range funcs {
		// Most end in EXIT, which is soon seen.
		if !s.exits(f.End-1) && !c.ends(f) || far && c.function(f) != nil {
			return false
		}
	}
	s.functions.deep = resize(s.functions.deep, len(funcs))
	n := nesting{program: p, funcs: funcs, deep: s.functions.deep}
	return n.check() == nil
}

// within reports whether no distance in off leads out of its function. Most
// blocks belong to one function as a whole.
func (s *Survey) within(funcs []Func) bool {
	outside, f := 0, 0
	for k := range s.blocks {
		b, slot := &s.blocks[k], k*blockSlots
		for slot >= funcs[f].End {
			f++
		}
		if start, end := funcs[f].Start, funcs[f].End; slot+blockSlots <= end {
			outside |= (int(b.least) - start) | (end - 1 - int(b.most)) // negative
			continue
		}
		for set := b.jumps; set != 0; set &= set - 1 {
			slot := k*blockSlots + bits.TrailingZeros64(set)
			for slot >= funcs[f].End {
				f++
			}
			to := slot + 1 + int(s.program.Insns[slot].Off)
			outside |= (to - funcs[f].Start) | (funcs[f].End - 1 - to)
		}
	}
	return outside >= 0
}

// refusal says what the slots of a dialect must not have, as far as that goes
// by looking at one slot without a branch. It knows one form of most opcodes,
// the one whose numbers that select are 0, and those that swap bytes; other
// slots are suspect. So are those that have one of the bits below in their
// opcode and in their fields:
//
//	opcode           fields
//	noImm            imm isn't 0
//	widths           imm isn't 16, 32 or 64
//	noOff            off isn't 0
//	noDst, noSrc     dst, src isn't 0
//	dstWritten       dst is R10
//	frame            dst is R10, and off not in the frame for all sizes
//	frameSrc         src is R10, and off not in the frame for all sizes
//
// Any slot is suspect with a register that doesn't exist in the dialect. Each
// table of nibbles has room for 8 rectangles.
type refusal struct {
	constants nibbles
	registers nibbles
	known     nibbles   // some bit: opcodes of which a form is known
	last      [32]uint8 // the largest number of a register
}

// Bits of refusal.constants. A rule has as many rectangles as it needs.
const (
	noImm  = 0x0f
	noOff  = 0x30
	widths = 0x40 // of imm
)

// Bits of refusal.registers.
const (
	noDst      = 0x03
	noSrc      = 0x0c
	dstWritten = 0x30
	frame      = 0x40
	frameSrc   = 0x80
)

// Accesses of any size lie in the frame if off is at least -abi.FrameBytes and
// no more than frameSpan further.
const frameSpan = abi.FrameBytes - 8

// suspect returns some bit if a slot is suspect.
func (r *refusal) suspect(in Insn) uint8 {
	var constants, registers uint8
	dst, src := in.Dst(), in.Src()
	outside := uint16(in.Off+abi.FrameBytes) > frameSpan
	for _, f := range []struct {
		yes                  bool
		constants, registers uint8
	}{
		{in.Imm != 0, noImm, 0}, {in.Imm != 16 && in.Imm != 32 && in.Imm != 64, widths, 0}, {in.Off != 0, noOff, 0},
		{dst != 0, 0, noDst}, {src != 0, 0, noSrc}, {dst == abi.R10, 0, dstWritten},
		{dst == abi.R10 && outside, 0, frame}, {src == abi.R10 && outside, 0, frameSrc},
	} {
		if f.yes {
			constants |= f.constants
			registers |= f.registers
		}
	}
	if max(dst, src) > r.last[0] || !r.knows(in.Op) {
		return 1
	}
	return constants&r.constants.of(in.Op) | registers&r.registers.of(in.Op)
}

// knows reports whether a form of an opcode is known.
func (r *refusal) knows(op uint8) bool { return r.known.of(op) != 0 }

// refusals are those of both dialects.
var refusals = [2]refusal{Source: refusalOf(Source), Translated: refusalOf(Translated)}

func refusalOf(d Dialect) (r refusal) {
	// forms has the form that is known of each opcode, or one of those of a
	// swap.
	var forms [256]*tables.FormInfo
	var seen [256]int32 // widths of swaps
	c := checker{dialect: d}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		// Of gotol one has to know more, and callx would take rectangles of its own.
		rare := form.Src.Writes() || form.Op == abi.OpGotol || form.Op == abi.OpCallx
		if rare || c.support(form) != tables.Allowed {
			continue
		}
		if tables.Matches[f].Value == uint64(form.Op) {
			forms[form.Op] = form
		} else if swap(form) {
			seen[form.Op] |= form.Imm.Value
			forms[form.Op] = form
		}
	}
	for op, all := range seen {
		if all != 0 && all != 16|32|64 {
			forms[op] = nil
		}
	}
	add := func(n *nibbles, rule uint8, of func(form *tables.FormInfo) bool) {
		in := func(op int) bool { return forms[op] != nil && of(forms[op]) }
		n.add(rule, in, func(op int) bool { return forms[op] == nil })
		for op := range 256 {
			if in(op) && n.of(uint8(op))&rule == 0 { // too few rectangles
				forms[op] = nil
			}
		}
	}
	add(&r.constants, noImm, func(f *tables.FormInfo) bool { return f.Imm.Fixed() && !swap(f) })
	add(&r.constants, noOff, func(f *tables.FormInfo) bool {
		return f.Off.Fixed() || f.Off.Use == tables.UseTranslated && d == Source
	})
	add(&r.constants, widths, swap)
	add(&r.registers, noDst, func(f *tables.FormInfo) bool { return f.Dst.Fixed() })
	add(&r.registers, noSrc, func(f *tables.FormInfo) bool { return f.Src.Fixed() })
	add(&r.registers, dstWritten, func(f *tables.FormInfo) bool { return f.Dst.Writes() })
	add(&r.registers, frame, func(f *tables.FormInfo) bool { return f.Dst.Use == tables.UseAddress && d == Source })
	add(&r.registers, frameSrc, func(f *tables.FormInfo) bool { return f.Src.Use == tables.UseAddress && d == Source })
	r.known.add(0xff, func(op int) bool { return forms[op] != nil }, never)
	for i := range r.last {
		r.last[i] = abi.R10
		if d == Translated {
			r.last[i] = abi.AX
		}
	}
	return r
}

// swap reports whether a form has its number of bits in imm, which is all that
// such an opcode's forms differ in.
func swap(f *tables.FormInfo) bool {
	return f.Imm.Use == tables.UseNumber && (f.Imm.Value == 16 || f.Imm.Value == 32 || f.Imm.Value == 64) &&
		f.Dst.Use == tables.UseReadWrite && f.Src.Use == tables.UseReserved && f.Off.Use == tables.UseReserved
}

var opSecond = tables.Forms[tables.FormLdSecond].Op
