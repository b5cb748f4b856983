package bpf

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Charge says that N is taken from the budget before the instruction in Slot.
type Charge struct{ Slot, N int32 }

// Charges says where a checked source program pays for what it executes, and
// how much. The result has one entry a slot: n > 0 means that n is taken from
// the budget before the instruction, 0 that nothing is.
func Charges(p *Program) []int32 {
	charges := make([]int32, len(p.Insns))
	for _, c := range AppendCharges(nil, p) {
		charges[c.Slot] = c.N
	}
	return charges
}

// AppendCharges appends to list where a checked source program pays for what
// it executes, and how much, in the order of the slots. It allocates nothing
// if list has the capacity. Time goes with the number of slots.
//
// Charge points are the beginnings of functions and the targets of backward
// jumps, so that no cycle and no call is without one. N is the number of
// instructions on the longest way from the point up to the next charge point
// or an EXIT; a 64-bit constant counts as one, a call as one, since the
// function called pays for itself. The budget used is thus never less than
// the number of instructions executed.
func AppendCharges(list []Charge, p *Program) []Charge {
	s := surveyOf(p)
	defer s.release()
	return s.AppendCharges(list)
}

// AppendCharges does it for the program that was surveyed, see the function
// AppendCharges.
func (s *Survey) AppendCharges(list []Charge) []Charge {
	if len(s.blocks) == 0 {
		return list
	}
	c := chargers.Get().(*charger)
	defer chargers.Put(c)
	c.insns = s.program.Insns
	c.begin(s)
	c.findPoints(s)
	list = c.charge(list)
	c.insns = nil
	return list
}

// charger works out charges. Only some slots matter, the marks: charge points,
// and the events, which are jumps and ends of functions. In between, one
// instruction follows another, and so does what they cost.
//
// The cost of a way is measured by where it would end if the program were one
// straight line: number(i), the number of instructions in front of slot i,
// plus the length of the way from there. This end is the same for all slots
// behind one mark up to and with the next. A jump over k instructions ends k
// earlier than what it leads to. A way that comes to a charge point ends there.
//
// One walk backward suffices: a way ends where it jumps backward, since that
// is a charge point, so what is behind an instruction on a way also stands
// behind it in the program.
type charger struct {
	insns  []Insn
	blocks []chargeBlock
	// ends has where the longest way ends from a mark, for those that come to
	// it. There is one more, for the end of the program.
	ends []int32
	// others are those of the survey.
	others []int32
}

// chargeBlock is what a charger knows of the slots of a block of a survey. It
// has one more, so that the slot behind the last one is in some block.
type chargeBlock struct {
	marks, points uint64
	seconds       uint64 // halves of constants, which are no instructions
	// How many there are in blocks before.
	marksBefore, secondsBefore int32
}

// before is a word with ones for the slots of a block in front of a slot.
func before(slot int32) uint64 { return 1<<(uint32(slot)%blockSlots) - 1 }

// mark returns how many marks there are in front of a slot.
func (c *charger) mark(slot int32) int32 {
	b := &c.blocks[uint32(slot)/blockSlots]
	return b.marksBefore + int32(bits.OnesCount64(b.marks&before(slot)))
}

// number returns the number of instructions in front of a slot.
func (c *charger) number(slot int32) int32 {
	b := &c.blocks[uint32(slot)/blockSlots]
	return slot - b.secondsBefore - int32(bits.OnesCount64(b.seconds&before(slot)))
}

var chargers = sync.Pool{New: func() any { return new(charger) }}

// resize returns a slice of length n, in the memory of s if that is enough.
// What is in it is of no use.
func resize[E any](s []E, n int) []E {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]E, n, n+n/4)
}

// begin fills in the blocks, but for points.
func (c *charger) begin(s *Survey) {
	c.blocks = resize(c.blocks, len(s.blocks)+1)
	for k := range s.blocks {
		b := &s.blocks[k]
		c.blocks[k] = chargeBlock{marks: b.jumps | b.exits, seconds: b.seconds}
	}
	c.blocks[len(s.blocks)] = chargeBlock{}
	c.others = s.AppendOthers(c.others[:0])
}

// findPoints finds the charge points, and counts.
func (c *charger) findPoints(s *Survey) {
	c.addPoint(0)
	for k := range s.blocks {
		for set := s.blocks[k].back; set != 0; set &= set - 1 {
			slot := int32(k*blockSlots + bits.TrailingZeros64(set))
			c.addPoint(slot + 1 + int32(c.insns[slot].Off))
		}
	}
	for _, slot := range c.others {
		switch in := c.insns[slot]; in.Op {
		case abi.OpGotol:
			c.blocks[slot/blockSlots].marks |= 1 << (slot % blockSlots)
			if in.Imm < 0 {
				c.addPoint(slot + 1 + in.Imm)
			}
		case abi.OpCall, abi.OpLdImm64:
			if d, ok := Distance(in); ok {
				c.addPoint(slot + 1 + d)
			}
		}
	}
	var marks, seconds int32
	for k := range c.blocks {
		b := &c.blocks[k]
		b.marks |= b.points
		b.marksBefore, b.secondsBefore = marks, seconds
		marks += int32(bits.OnesCount64(b.marks))
		seconds += int32(bits.OnesCount64(b.seconds))
	}
	c.ends = resize(c.ends, int(marks)+1)
	c.ends[marks] = int32(len(c.insns)) - seconds
}

func (c *charger) addPoint(slot int32) {
	c.blocks[slot/blockSlots].points |= 1 << (slot % blockSlots)
}

// charge walks backward over the marks.
func (c *charger) charge(list []Charge) []Charge {
	first := len(list)
	k := len(c.ends) - 1
	end := c.ends[k]
	for at := len(c.blocks) - 1; at >= 0; at-- {
		b := &c.blocks[at]
		for set := b.marks; set != 0; {
			i := bits.Len64(set) - 1
			set &^= 1 << i
			slot := int32(at*blockSlots + i)
			in := &c.insns[slot]
			number := c.number(slot)
			k--
			if b.points>>i&1 == 0 || flows[in.Op].marked {
				end = c.event(in, slot, number, end)
			}
			if b.points>>i&1 != 0 {
				list = append(list, Charge{Slot: slot, N: end - number})
				end = number
			}
			c.ends[k] = end
		}
	}
	slices.Reverse(list[first:])
	return list
}

// event returns where the longest way ends from an event with a number, if the
// one from the next instruction ends at end. What it does with a kind of
// instruction it does without a branch.
func (c *charger) event(in *Insn, slot, number, end int32) int32 {
	d := int32(in.Off)
	if in.Op == abi.OpGotol {
		d = in.Imm
	}
	f := &flows[in.Op]
	back := d >> 31
	// Where a branch leads backward, it is as if it led to the next instruction.
	to := slot + 1 + d&^back
	there := c.ends[c.mark(to)] - c.number(to) + number + 1
	stops := f.stops | back&^f.goesOn
	there = there&^stops | (number+1)&stops
	return most(end&f.goesOn, there)
}

// flow is what matters of an opcode to a charger, as masks.
type flow struct {
	goesOn int32 // -1 if it may go on at the next instruction
	stops  int32 // -1 if it leads nowhere
	marked bool  // it is an event
}

var flows = func() (list [256]flow) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		switch form := &tables.Forms[f]; form.Flow {
		case tables.FlowBranch:
			list[form.Op] = flow{goesOn: -1, marked: true}
		case tables.FlowJump:
			list[form.Op] = flow{marked: true}
		case tables.FlowExit:
			list[form.Op] = flow{stops: -1, marked: true}
		}
	}
	return list
}()

// most is the greater one of a and b, which are not far apart. Unlike max it
// is compiled without a branch.
func most(a, b int32) int32 {
	d := b - a
	return a + d&^(d>>31)
}
