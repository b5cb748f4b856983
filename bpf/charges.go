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
	c.insns = s.Program().Insns
	c.begin(s)
	list = c.charge(list)
	c.insns = nil
	return list
}

// charger works out charges. Only some slots matter, the marks: charge points,
// jumps, ends of functions, and second halves of constants, which are no
// instructions. In between, one instruction follows another, and the way from
// each is longer by one than that from the next.
//
// One walk backward suffices: a way ends where it jumps backward, since that
// is a charge point, so what is behind an instruction on a way also stands
// behind it in the program.
type charger struct {
	insns  []Insn
	blocks []chargeBlock
	// lengths has, behind lengthsBefore elements, for each slot and the end of
	// the program how many instructions a way to the slot goes on from there:
	// none if it is a charge point.
	lengths []int32
	// others are those of the survey.
	others []int32
	// What is behind slot at is done, and the way from there has a length.
	at     int
	length int32
}

// chargeBlock is what a charger knows of the slots of a block of a survey.
type chargeBlock struct {
	marks  uint64
	points uint64
	rare   uint64 // marks that walk stops at: points, and gotol
}

// lengthsBefore is how many elements in front of a slot's walk may set.
const lengthsBefore = 16

var chargers = sync.Pool{New: func() any { return new(charger) }}

// resize returns a slice of length n, in the memory of s if that is enough.
// What is in it is of no use.
func resize[E any](s []E, n int) []E {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]E, n, n+n/4)
}

// begin finds the marks.
func (c *charger) begin(s *Survey) {
	c.blocks = resize(c.blocks, len(s.blocks))
	c.lengths = resize(c.lengths, lengthsBefore+len(c.insns)+1)
	for k := range s.blocks {
		b := &s.blocks[k]
		c.blocks[k] = chargeBlock{marks: b.jumps | b.exits | b.seconds}
		for set := b.back; set != 0; set &= set - 1 {
			slot := int32(k*blockSlots + bits.TrailingZeros64(set))
			c.addPoint(slot + 1 + int32(c.insns[slot].Off)) // in this block, or in front
		}
	}
	c.addPoint(0)
	c.others = s.AppendOthers(c.others[:0])
	for _, slot := range c.others {
		switch in := c.insns[slot]; in.Op {
		case abi.OpGotol:
			c.addRare(slot)
			if in.Imm < 0 {
				c.addPoint(slot + 1 + in.Imm)
			}
		case abi.OpCall, abi.OpLdImm64:
			if d, ok := Distance(in); ok {
				c.addPoint(slot + 1 + d)
			}
		}
	}
}

func (c *charger) addRare(slot int32) *chargeBlock {
	b := &c.blocks[slot/blockSlots]
	b.marks |= 1 << (slot % blockSlots)
	b.rare |= 1 << (slot % blockSlots)
	return b
}

func (c *charger) addPoint(slot int32) { c.addRare(slot).points |= 1 << (slot % blockSlots) }

// charge walks backward over the marks.
func (c *charger) charge(list []Charge) []Charge {
	first := len(list)
	c.at, c.length = len(c.insns), 0
	for c.at > 0 { // slot 0 is a charge point
		c.walk()
		in, d := &c.insns[c.at], 0
		switch f := &flows[in.Op]; {
		case in.Op == abi.OpGotol:
			d = int(in.Imm)
		case f.leads != 0:
			d = int(in.Off)
		}
		c.length = c.from(in, c.length, d)
		if c.blocks[c.at/blockSlots].points>>(c.at%blockSlots)&1 != 0 {
			list = append(list, Charge{Slot: int32(c.at), N: c.length})
			c.length = 0
		}
	}
	slices.Reverse(list[first:])
	return list
}

// from returns the length of the way from slot at, where in is, which leads
// over d slots. next is that from the next slot. A way that leads back ends
// there.
func (c *charger) from(in *Insn, next int32, d int) int32 {
	f := &flows[in.Op]
	there := int32(0)
	if d >= 0 {
		there = c.lengths[lengthsBefore:][c.at+1+d] & f.leads
	}
	return max(next&f.goesOn, there) + f.counts
}

// walkGeneric walks backward from slot at, up to the next rare mark: at is that
// then, the lengths behind it are known, and length is that of the slot behind.
func (c *charger) walkGeneric() {
	lengths := c.lengths[lengthsBefore:]
	lengths[c.at] = c.length
	for c.at--; ; c.at-- {
		b, bit := &c.blocks[c.at/blockSlots], uint64(1)<<(c.at%blockSlots)
		switch in := &c.insns[c.at]; {
		case b.rare&bit != 0:
			return
		case b.marks&bit != 0:
			c.length = c.from(in, c.length, int(in.Off))
		default:
			c.length++
		}
		lengths[c.at] = c.length
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
