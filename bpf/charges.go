package bpf

import (
	"math/bits"

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
	list = append(list, s.Charges()...)
	s.charger.insns = nil // the caller's
	return list
}

// Charges returns what AppendCharges appends, for the program that was surveyed. It
// is good until s is used for another program.
func (s *Survey) Charges() []Charge {
	p, n := s.Program(), len(s.blocks)
	if n == 0 {
		return nil
	}
	if s.landed < n {
		s.land(n)
	}
	c := &s.charger
	c.insns, c.blocks = p.Insns, s.blocks
	s.blocks[0].points |= 1
	c.gotos = c.gotos[:0]
	if s.kinds&(Gotols|Links) != 0 {
		c.addFar(s.others)
	}
	points := c.mark()
	if len(c.charges) < points {
		c.charges = make([]Charge, points+points/4)
	}
	c.left = points
	c.charge()
	return c.charges[:points]
}

// charger works out charges. Only some slots matter, the marks: charge points,
// jumps, ends of functions, and second halves of constants, which are no
// instructions. In between, one instruction follows another, and the way from
// each is longer by one than that from the next.
//
// One walk backward suffices: a way ends where it jumps backward, since that
// is a charge point, so what is behind an instruction on a way also stands
// behind it in the program.
//
// It is what the assembly works on: gen/asm/bpf has the offsets.
type charger struct {
	insns  []Insn
	blocks []block
	// marks has a bit for each slot, and one more for the end of the program, which
	// is a mark. There are 64 bits more, zeros, for those who read bytes. There may be
	// more of no use, of longer programs.
	marks []uint64
	// lengths has for each mark from slot base on how many instructions a way to
	// it goes on from there: none if it is a charge point, or the end of the
	// program. There are at least those that are needed.
	lengths []int32
	base    int
	// What is behind slot at is done, and the way from there has a length. It is to be
	// done up to slot stop.
	at, stop int
	length   int
	// charges, of which there is one for each point or more, are filled in from behind;
	// left are missing.
	charges []Charge
	left    int
	// gotos are the slots with gotol. Only they lead further than 16 bits say.
	gotos []int32
}

const (
	// window is how many lengths there is room for, in the cache. With a gotol, which
	// leads further, all are kept.
	window = 1 << 16
	// stride is how far it is at most from a slot to the next mark: so many slots
	// from one to the next, some are marks for this alone.
	stride = chunk * blockSlots
	// needed is how many lengths behind a slot it may depend on: a jump reaches
	// 32,768 slots, and the next mark behind is a stride further at most.
	needed = 1<<15 + stride
)

// resize returns a slice of length n, in the memory of s if that is enough.
// What is in it is of no use.
func resize[E any](s []E, n int) []E {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]E, n, n+n/4)
}

// addFar adds the points where others lead to, and lists gotol.
func (c *charger) addFar(others []Other) {
	for _, o := range others {
		switch o.Insn.Op {
		case abi.OpGotol:
			c.gotos = append(c.gotos, o.Slot)
			if o.Insn.Imm < 0 {
				c.addPoint(o.Slot + 1 + o.Insn.Imm)
			}
		case abi.OpCall, abi.OpLdImm64:
			if d, ok := Distance(o.Insn); ok {
				c.addPoint(o.Slot + 1 + d)
			}
		}
	}
}

// mark finds the marks. It returns how many of them are points.
func (c *charger) mark() (points int) {
	n := len(c.blocks)
	if len(c.marks) < n+2 {
		c.marks = make([]uint64, n+2+n/4)
	}
	marks := c.marks[:n+2]
	for k := range c.blocks {
		b := &c.blocks[k]
		marks[k] = b.jumps | b.exits | b.seconds | b.points
		points += bits.OnesCount64(b.points)
	}
	for k := stride / blockSlots; k < n; k += stride / blockSlots { // slot 0 is a point
		marks[k] |= 1
	}
	marks[n], marks[n+1] = 0, 0
	c.addMark(len(c.insns))
	for _, slot := range c.gotos {
		c.addMark(int(slot))
	}
	return points
}

func (c *charger) addPoint(slot int32) { c.blocks[slot/blockSlots].points |= 1 << (slot % blockSlots) }

func (c *charger) addMark(slot int) { c.marks[slot/blockSlots] |= 1 << (slot % blockSlots) }

// charge walks backward over the marks.
func (c *charger) charge() {
	n := len(c.insns)
	kept := n + 1
	if len(c.gotos) == 0 {
		kept = min(kept, window)
	}
	if len(c.lengths) < kept {
		c.lengths = make([]int32, kept+kept/4)
	}
	c.base = n + 1 - kept
	c.at, c.length = n, 0
	c.lengths[n-c.base] = 0
	for {
		c.stop = max(c.at-chunk*blockSlots, c.base, 0)
		if len(c.gotos) > 0 {
			c.walkToGoto()
		} else {
			c.walk()
		}
		if c.at == 0 {
			return
		}
		if c.at == c.base {
			copy(c.lengths[window-needed:window], c.lengths[:needed])
			c.base -= window - needed
		}
	}
}

// walkToGoto walks to stop, but not past a gotol, over which it steps.
func (c *charger) walkToGoto() {
	last := len(c.gotos) - 1
	slot := int(c.gotos[last])
	c.stop = max(c.stop, slot+1)
	if c.at > c.stop {
		c.walk()
	}
	if c.at == slot+1 {
		c.step(slot, int(c.insns[slot].Imm))
		c.gotos = c.gotos[:last]
	}
}

// walkGeneric walks backward from slot at to stop, which is in front: at is that
// then.
func (c *charger) walkGeneric() {
	for stop := c.stop; c.at > stop; {
		k := (c.at - 1) / blockSlots
		set := c.marks[k] & (2<<((c.at-1)%blockSlots) - 1)
		slot := k*blockSlots + bits.Len64(set) - 1
		if set == 0 || slot < stop {
			next := max(k*blockSlots, stop) // no mark in between
			c.length += c.at - next
			c.at = next
			continue
		}
		c.step(slot, int(c.insns[slot].Off))
	}
}

// step walks backward to the next mark, whose instruction may lead over d slots.
func (c *charger) step(slot, d int) {
	f := &flows[c.insns[slot].Op]
	there := int32(0)
	if d >= 0 { // a way that leads back ends there
		there = c.from(slot+1+d) & f.leads
	}
	next := int32(c.length + c.at - slot - 1)
	length := max(next&f.goesOn, there) + f.counts
	if c.blocks[slot/blockSlots].points>>(slot%blockSlots)&1 != 0 {
		c.left--
		c.charges[c.left] = Charge{Slot: int32(slot), N: length}
		length = 0
	}
	c.lengths[slot-c.base] = length
	c.at, c.length = slot, int(length)
}

// from returns the length of the way from a slot behind at, or from the end of
// the program for one that is further.
func (c *charger) from(slot int) int32 {
	slot = min(slot, len(c.insns))
	mark := slot
	for {
		if set := c.marks[mark/blockSlots] >> (mark % blockSlots); set != 0 {
			mark += bits.TrailingZeros64(set)
			return c.lengths[mark-c.base] + int32(mark-slot)
		}
		mark = (mark/blockSlots + 1) * blockSlots
	}
}

// flow is what matters of an opcode to a charger. The first two are masks.
type flow struct {
	goesOn int32 // -1 if it may go on at the next instruction
	leads  int32 // -1 if it may go on elsewhere
	counts int32 // 1 if it is an instruction
	_      int32
}

var flows = func() (list [256]flow) {
	for op := range list {
		list[op] = flow{goesOn: -1, counts: 1}
	}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		switch form := &tables.Forms[f]; form.Flow {
		case tables.FlowBranch:
			list[form.Op].leads = -1
		case tables.FlowJump:
			list[form.Op] = flow{leads: -1, counts: 1}
		case tables.FlowExit:
			list[form.Op] = flow{counts: 1}
		}
	}
	list[opSecond].counts = 0
	return list
}()
