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
	if len(p.Insns) == 0 {
		return list
	}
	c := chargers.Get().(*charger)
	defer chargers.Put(c)
	c.insns = p.Insns
	c.findEvents()
	c.findPoints()
	list = c.charge(list)
	c.insns = nil
	return list
}

// charger works out charges. Only some slots matter, the events: jumps, ends
// of functions, and second halves of constants. In between, one instruction
// follows another, and so does what they cost.
//
// The cost of a way is measured by where it would end if the program were one
// straight line: number(i), the number of instructions in front of slot i,
// plus the length of the way from there. This end is the same for all slots
// from one event to the next. A jump over k instructions ends k earlier than
// what it leads to.
//
// One walk backward suffices: a way ends where it jumps backward, since that
// is a charge point, so what is behind an instruction on a way also stands
// behind it in the program.
type charger struct {
	insns []Insn
	// next[i] is the first event that isn't in front of slot i.
	next   []int32
	events []event
	// points has a bit for each charge point, list has them in order.
	points []uint64
	list   []int32
}

type event struct {
	slot int32
	// seconds is the number of second halves in front of it.
	seconds int32
	// end is where the longest way from the event ends.
	end int32
	// split is set if there are charge points between the event in front of
	// this one and this one, or at it.
	split bool
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

// findEvents lists the events. Where they are can't be foreseen, so the loop
// doesn't branch on it.
func (c *charger) findEvents() {
	n := len(c.insns)
	c.next = resize(c.next, n)
	c.events = resize(c.events, n)
	next, events := c.next[:n], c.events[:n]
	k := 0
	var seconds int32
	for i := range c.insns {
		kind := eventKinds[c.insns[i].Op]
		next[i] = int32(k)
		events[k] = event{slot: int32(i), seconds: seconds}
		k += int(kind & 1)
		seconds += int32(kind >> 1)
	}
	c.events = events[:k]
}

// eventKinds has 1 for the opcodes of events, 3 for that of second halves.
var eventKinds = func() (kinds [256]uint8) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		switch form := &tables.Forms[f]; {
		case f == tables.FormLdSecond:
			kinds[form.Op] = 3
		case form.Flow == tables.FlowExit, form.Off.Use == tables.UseDistance, form.Imm.Use == tables.UseDistance:
			kinds[form.Op] = 1
		}
	}
	return kinds
}()

// findPoints lists the charge points.
func (c *charger) findPoints() {
	c.points = resize(c.points, (len(c.insns)+63)/64)
	clear(c.points)
	c.points[0] = 1
	for k := range c.events {
		i := int(c.events[k].slot)
		in := &c.insns[i]
		switch reaches[in.Op] {
		case reachOff:
			if in.Off < 0 {
				c.addPoint(i + 1 + int(in.Off))
			}
		case reachForm:
			if in.Op == abi.OpCall && in.Src() != abi.CallLocal || in.Op == abi.OpLdImm64 && in.Src() != abi.Imm64Func {
				continue // most of them
			}
			if d, form, ok := distance(*in); ok && (toFunction(form) || d < 0) {
				c.addPoint(i + 1 + int(d))
			}
		}
	}
	c.list = c.list[:0]
	for w, set := range c.points {
		for ; set != 0; set &= set - 1 {
			slot := int32(64*w + bits.TrailingZeros64(set))
			c.list = append(c.list, slot)
			c.events[c.next[slot]].split = true
		}
	}
}

func (c *charger) addPoint(slot int) { c.points[slot/64] |= 1 << (slot % 64) }

// charge walks backward over events and charge points.
func (c *charger) charge(list []Charge) []Charge {
	first := len(list)
	list = slices.Grow(list, len(c.list))[:first+len(c.list)]
	left := len(c.list) // charge points in front of what is done
	var end int32
	for k := len(c.events) - 1; k >= 0; k-- {
		e := &c.events[k]
		in := &c.insns[e.slot]
		number := e.slot - e.seconds
		switch {
		case in.Op == abi.OpExit:
			end = number + 1
		case reaches[in.Op] == reachOff:
			way := number + 1 // backward, to a charge point
			if in.Off >= 0 {
				way = c.jump(number, e.slot+1+int32(in.Off))
			}
			if in.Op == abi.OpJa {
				end = way
			} else {
				end = max(end, way)
			}
		case in.Op == abi.OpGotol:
			end = number + 1
			if in.Imm >= 0 {
				end = c.jump(number, e.slot+1+in.Imm)
			}
		}
		e.end = end
		if !e.split {
			continue
		}
		after := int32(-1)
		if k > 0 {
			after = c.events[k-1].slot
		}
		for ; left > 0 && c.list[left-1] > after; left-- {
			slot := c.list[left-1]
			number := slot - e.seconds
			list[first+left-1] = Charge{Slot: slot, N: end - number}
			end = number
		}
	}
	return list
}

// jump returns where a way ends that jumps forward to a slot, from behind
// the instruction with the given number.
func (c *charger) jump(from, slot int32) int32 {
	e := &c.events[c.next[slot]]
	number := slot - e.seconds
	end := e.end
	if e.split {
		// Maybe a charge point lies in between, or is the slot itself.
		if at, _ := slices.BinarySearch(c.list, slot); at < len(c.list) && c.list[at] <= e.slot {
			end = c.list[at] - e.seconds
		}
	}
	return end - (number - from - 1)
}
