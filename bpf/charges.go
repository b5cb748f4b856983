package bpf

import (
	"math"
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
	return append(list, s.Charges()...)
}

// Charges returns what AppendCharges appends, for the program that was surveyed. It
// is good until s is used for another program.
func (s *Survey) Charges() []Charge {
	list := s.charge()
	end := len(list) - 1
	return list[:end:end] // who appends doesn't write to the end
}

// noCharges is the end of a list of charges: one behind all programs.
var noCharges = []Charge{{Slot: math.MaxInt32}}

// charge returns the charges with noCharges behind.
func (s *Survey) charge() []Charge {
	s.Program()
	if len(s.blocks) == 0 {
		return noCharges
	}
	c, first := &s.charger, &s.blocks[0]
	c.entered = first.points&1 != 0
	first.points |= 1
	c.at = s.slots
	if s.slots <= c.room && s.kinds&(Gotols|Links) == 0 {
		c.base, c.stop, c.left = 0, 0, len(c.charges)-1
		s.walk()
	}
	if c.at > 0 {
		s.chargeParts()
	}
	return c.charges[c.left:]
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
	// marks has a bit for each slot, from the first of the block that is being done on,
	// and one more for the end of the program, which is a mark. For the assembly the
	// last slot of each block is one, too, so that it finds the next mark from a slot on
	// in the same word. There may be more words of no use, of longer programs.
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
	// charges are filled in from behind; left is where the first is. The last is that of
	// noCharges.
	charges []Charge
	left    int
	// gotos are the slots with gotol. Only they lead further than 16 bits say.
	gotos []int32
	// room is how many slots a program has at most for which there is room, and which
	// is done in one walk.
	room int
	// entered says that slot 0 was a point for what leads there.
	entered bool
}

const (
	// window is how many lengths there is room for, in the cache. With a gotol, which
	// leads further, all are kept.
	window = 1 << 16
	// stride is how far it walks at once. Where it stops there is a mark, or one in the
	// same block, so it is no further from a slot to the next.
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

// chargeParts walks backward over the marks, in parts.
func (s *Survey) chargeParts() {
	c, n := &s.charger, s.slots
	c.gotos = c.gotos[:0]
	if s.kinds&(Gotols|Links) != 0 {
		s.addFar()
	}
	kept := n + 1
	if len(c.gotos) == 0 {
		kept = min(kept, window)
	}
	c.grow(n/blockSlots+1, kept)
	c.base, c.at, c.left = n+1-kept, n, max(len(c.charges)-1, 0)
	s.beginEnd()
	for c.at > 0 {
		gotol := -1
		if k := len(c.gotos); k > 0 {
			gotol = int(c.gotos[k-1])
		}
		c.stop = max(c.at-stride, c.base, gotol+1)
		if c.left <= c.at-c.stop {
			c.makeRoom()
		}
		if c.at > c.stop {
			s.walk()
		}
		for c.at > c.stop {
			s.walkBlock()
		}
		switch {
		case gotol >= 0 && c.at == gotol+1:
			s.stepOver(gotol)
		case c.at == c.base && c.at > 0:
			c.slide()
		}
	}
	c.room = min(stride, len(c.marks)*blockSlots-1, len(c.lengths)-1, len(c.charges)-2)
}

// addFar adds the points where others lead to, and lists gotol.
func (s *Survey) addFar() {
	c := &s.charger
	for _, o := range s.others {
		switch o.Insn.Op {
		case abi.OpGotol:
			c.gotos = append(c.gotos, o.Slot)
			if o.Insn.Imm < 0 {
				s.addPoint(o.Slot + 1 + o.Insn.Imm)
			}
		case abi.OpCall, abi.OpLdImm64:
			if d, ok := Distance(o.Insn); ok {
				s.addPoint(o.Slot + 1 + d)
			}
		}
	}
}

// addPoint adds a point, unless it is outside of the program: nobody need have checked it.
func (s *Survey) addPoint(slot int32) {
	if uint(slot) < uint(s.slots) {
		s.blocks[slot/blockSlots].points |= 1 << (slot % blockSlots)
	}
}

func (c *charger) addMark(slot int) { c.marks[slot/blockSlots] |= 1 << (slot % blockSlots) }

// grow makes more room for marks and lengths, if it is needed. What they have is of no
// use then.
func (c *charger) grow(marks, lengths int) {
	if len(c.marks) < marks || len(c.lengths) < lengths {
		c.marks = make([]uint64, marks+marks/4)
		c.lengths = make([]int32, lengths+lengths/4)
	}
}

// makeRoom makes room for so many charges as there may be up to stop, and one.
func (c *charger) makeRoom() {
	charges := c.charges[c.left:]
	if len(charges) == 0 {
		charges = noCharges
	}
	size := 2*len(charges) + c.at - c.stop
	c.left = size - len(charges)
	c.charges = append(make([]Charge, c.left, size), charges...)
}

// beginEnd makes a mark of the end of the program, and finds those of its last block.
func (s *Survey) beginEnd() {
	c, n := &s.charger, s.slots
	end := n / blockSlots
	c.marks[end] = 0
	if n%blockSlots != 0 {
		s.findMarks(end)
	}
	c.addMark(n)
	c.lengths[n-c.base], c.length = 0, 0
}

// slide makes room for lengths in front of base.
func (c *charger) slide() {
	copy(c.lengths[window-needed:window], c.lengths[:needed])
	c.base -= window - needed
}

// stepOver steps over a gotol, which is the last one that is left.
func (s *Survey) stepOver(slot int) {
	c := &s.charger
	if c.at%blockSlots == 0 {
		s.findMarks(slot / blockSlots)
	}
	c.addMark(slot)
	s.step(slot, int(s.program.Insns[slot].Imm))
	c.gotos = c.gotos[:len(c.gotos)-1]
}

// walkBlock walks backward to the beginning of a block, or to stop, which becomes a
// mark.
func (s *Survey) walkBlock() {
	c := &s.charger
	k := (c.at - 1) / blockSlots
	if c.at%blockSlots == 0 {
		s.findMarks(k)
	}
	if c.stop/blockSlots == k {
		c.addMark(c.stop)
	}
	first := max(k*blockSlots, c.stop)
	for set := c.marks[k] & (2<<((c.at-1)%blockSlots) - 1) >> (first % blockSlots); set != 0; {
		slot := first + bits.Len64(set) - 1
		s.step(slot, int(s.program.Insns[slot].Off))
		set &^= 1 << (slot - first)
	}
	c.length += c.at - first // no mark in between
	c.at = first
}

// findMarks finds the marks of a block: slots that are it for what they are.
func (s *Survey) findMarks(k int) {
	b := &s.blocks[k]
	s.charger.marks[k] = b.jumps | b.exits | b.seconds | b.points
}

// step walks backward to the next mark, whose instruction may lead over d slots.
func (s *Survey) step(slot, d int) {
	c, f := &s.charger, &flows[s.program.Insns[slot].Op]
	there := int32(0)
	if d >= 0 { // a way that leads back ends there
		there = s.from(slot+1+d) & f.leads
	}
	next := int32(c.length + c.at - slot - 1)
	length := max(next&f.goesOn, there) + f.counts
	if s.blocks[slot/blockSlots].points>>(slot%blockSlots)&1 != 0 {
		c.left--
		c.charges[c.left] = Charge{Slot: int32(slot), N: length}
		length = 0
	}
	c.lengths[slot-c.base] = length
	c.at, c.length = slot, int(length)
}

// from returns the length of the way from a slot behind at, or from the end of
// the program for one that is further.
func (s *Survey) from(slot int) int32 {
	c := &s.charger
	slot = min(slot, s.slots)
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
