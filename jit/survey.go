package jit

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// wordSlots is how many slots a word of a bitmap has a bit for.
const wordSlots = 64

// isTarget is the mark of a slot that a jump leads to.
const isTarget = 0xff

// nothingHeld is no register.
const nothingHeld = 16

// noBase is the base of what doesn't access memory by a move to r11.
const noBase = 8

// opcode is what a survey wants to know of one.
type opcode struct {
	move, add bool  // of registers, or of a constant
	base      uint8 // where in Regs the base of the address is, or noBase
	writes    bool  // dst
	forgets   bool  // what r11 holds
	jumps     bool
}

var opcodes = func() (t [256]opcode) {
	for op := range t {
		t[op] = opcode{base: noBase, forgets: true}
	}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		o := &t[form.Op]
		switch class := form.Op & abi.ClassMask; {
		case form.Off.Use == tables.UseDistance, f == tables.FormJmpGotol:
			o.forgets = false
		case class == abi.ClassALU, class == abi.ClassALU64:
			o.writes = true
			switch form.Op & abi.OpMask {
			case 0x30, 0x90: // division
			case 0x60, 0x70, 0xc0:
				o.forgets = form.Op&abi.SourceX != 0
			default:
				o.forgets = false
			}
		case form.Op == abi.OpLdImm64, f == tables.FormLdSecond:
			o.writes, o.forgets = form.Op == abi.OpLdImm64, false
		}
		switch f {
		case tables.FormLdxMemB, tables.FormLdxMemH, tables.FormLdxMemW, tables.FormLdxMemDw,
			tables.FormLdxMemsxB, tables.FormLdxMemsxH, tables.FormLdxMemsxW:
			*o = opcode{base: 4, writes: true}
		case tables.FormStxMemB, tables.FormStxMemH, tables.FormStxMemW, tables.FormStxMemDw,
			tables.FormStMemB, tables.FormStMemH, tables.FormStMemW, tables.FormStMemDw:
			*o = opcode{base: 0}
		}
	}
	for op := range t {
		switch uint8(op) & abi.ClassMask {
		case abi.ClassJMP, abi.ClassJMP32:
			t[op].jumps = true
		}
	}
	for _, op := range []uint8{abi.OpCall, abi.OpCallx, abi.OpExit, abi.OpCharge} {
		t[op].jumps = false
	}
	for _, less := range []uint8{0, narrow} {
		t[opMoveX-less].move, t[opAddK-less].add, t[opAddX-less].add = true, true, true
	}
	return t
}()

// surveyJob is what the assembly of a survey works on. gen/asm/survey has the offsets.
type surveyJob struct {
	insns     *abi.Insn // whole words, and one more
	targets   *uint8
	additions *uint64

	slots int
	//lint:ignore U1000 of the assembly
	next, stop int // in words

	held uint64 // whether r11 holds the last base still
	//lint:ignore U1000 of the assembly
	base  [32]uint8 // the last base, everywhere
	moves [32]uint8 // of the last 32 slots: dst, and noMove or twice that

	// Of each word, and in lists of one more, for reading: what was seen of its slots,
	// registers and properties; its jumps; its accesses that are to be marked.
	//lint:ignore U1000 of the assembly
	looked [surveyWords][4][32]uint8
	//lint:ignore U1000 of the assembly
	jumps, again [surveyWords + 1]uint64
}

// surveyWords is how many words are looked at together. Assembly can't be preempted,
// and the collector should not have to wait for more than some microseconds.
const surveyWords = 64

// noMove is above dst where no move writes it.
const noMove = 0x40

// prepareSurvey makes room for the results of a survey, and for a copy of the
// instructions, which takes their place.
func (c *compiler) prepareSurvey() {
	f, n := &c.fusing, len(c.insns)
	words := (n + wordSlots - 1) / wordSlots
	if words >= cap(f.additions) {
		f.makeRoom(words)
	}
	f.additions = f.additions[:words]
	clear(f.targets[:words*wordSlots+1])
	insns := f.insns[:n]
	copy(insns, c.insns)
	c.insns = insns
	f.job.slots, f.job.held, f.job.moves[31] = n, 0, noMove
}

// makeRoom makes memory for some words, and for one more or some. It is rare, and
// not for the instruction cache.
//
//go:noinline
func (f *fusing) makeRoom(words int) {
	words += words/4 + 1
	slots := words*wordSlots + 1
	f.insns, f.targets, f.additions = make([]abi.Insn, slots), make([]uint8, slots), make([]uint64, words)
	f.job.insns, f.job.targets, f.job.additions = &f.insns[0], &f.targets[0], &f.additions[0]
}

// surveyGeneric finds the additions to the register that the slot before moves
// to, and marks the targets of jumps and the accesses whose address r11 has
// already.
//
// What is before surveyWords words doesn't see jumps back into it: they lead to a CHARGE,
// which forgets.
func (c *compiler) surveyGeneric() {
	f := &c.fusing
	clear(f.additions)
	moved := uint8(nothingHeld) // the register that the slot before moves to
	held := uint8(nothingHeld)  // the one that r11 has the lower half of
	for word := range f.additions {
		start := word * wordSlots
		insns := c.insns[start:min(start+wordSlots, len(c.insns))]
		if word%surveyWords == 0 {
			c.markTargets(c.insns[start:min(start+surveyWords*wordSlots, len(c.insns))], start)
		}
		for i, in := range insns {
			what := &opcodes[in.Op]
			bit := uint64(1) << i
			if what.add && in.Dst() == moved {
				f.additions[word] |= bit
			}
			moved = nothingHeld
			if what.move {
				moved = in.Dst()
			}

			if f.targets[start+i] != 0 {
				held = nothingHeld
			}
			if base := in.Regs >> (what.base & 7) & 15; what.base != noBase && base != abi.R10 {
				if base == held {
					markAgain(&insns[i])
				}
				held = base
			}
			if what.forgets || what.writes && in.Dst() == held {
				held = nothingHeld
			}
		}
	}
}

// markTargets marks where the jumps of instructions lead to, the first of which
// is that of slot start. Those to nowhere, which nobody compiles, lead behind
// the last slot.
func (c *compiler) markTargets(insns []abi.Insn, start int) {
	for i, in := range insns {
		if !opcodes[in.Op].jumps {
			continue
		}
		distance := int32(in.Off)
		if in.Op == abi.OpGotol {
			distance = in.Imm
		}
		to := min(uint32(start+i+1)+uint32(distance), uint32(len(c.insns)))
		c.fusing.targets[to] = isTarget
	}
}
