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

// charger works out charges. Only some slots matter, the events: jumps, and
// ends of functions. In between, one instruction follows another, and so does
// what they cost.
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
	// at[i] counts what is in front of slot i.
	at []eventCount
	// events has the slots of events. splits is added to those that have
	// charge points between the event in front of them and them, or at them.
	events []int32
	// ends has where the longest way from an event ends.
	ends []int32
	// links are the slots that may lead to functions.
	links []int32
	// set has a bit for each charge point, points has them in order.
	set    []uint64
	points []int32
}

const splits = -1 << 31

// eventCount counts events in its lower 32 bits, and in its upper ones second
// halves of constants, which are no instructions.
type eventCount uint64

func (c eventCount) events() int    { return int(uint32(c)) }
func (c eventCount) seconds() int32 { return int32(c >> 32) }

// eventSteps says how each opcode counts.
var eventSteps = func() (steps [256]eventCount) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		switch form := &tables.Forms[f]; {
		case f == tables.FormLdSecond:
			steps[form.Op] = 1 << 32
		case form.Flow == tables.FlowExit, form.Flow == tables.FlowJump, form.Flow == tables.FlowBranch:
			steps[form.Op] = 1
		}
	}
	return steps
}()

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
	c.at = resize(c.at, n+1)
	c.events = resize(c.events, n+1)
	var now eventCount
	insns, at, events := c.insns, c.at[:n], c.events
	for len(insns) >= 4 && len(at) >= 4 {
		four, at4 := (*[4]Insn)(insns), (*[4]eventCount)(at)
		slot := int32(n - len(insns))
		at4[0], events[now.events()] = now, slot
		now += eventSteps[four[0].Op]
		at4[1], events[now.events()] = now, slot+1
		now += eventSteps[four[1].Op]
		at4[2], events[now.events()] = now, slot+2
		now += eventSteps[four[2].Op]
		at4[3], events[now.events()] = now, slot+3
		now += eventSteps[four[3].Op]
		insns, at = insns[4:], at[4:]
	}
	for i := range insns {
		at[i], events[now.events()] = now, int32(n-len(insns)+i)
		now += eventSteps[insns[i].Op]
	}
	c.at[n] = now
	c.events = c.events[:now.events()]
	c.ends = resize(c.ends, len(c.events))
	c.links = appendLinks(c.links[:0], c.insns)
}

// number returns the number of instructions in front of a slot.
func (c *charger) number(slot int32) int32 { return slot - c.at[slot].seconds() }

// findPoints lists the charge points.
func (c *charger) findPoints() {
	c.set = resize(c.set, (len(c.insns)+63)/64)
	clear(c.set)
	c.addPoint(0)
	for _, slot := range c.events {
		switch in := &c.insns[slot]; {
		case in.Op == abi.OpGotol:
			if in.Imm < 0 {
				c.addPoint(slot + 1 + in.Imm)
			}
		case in.Off < 0:
			c.addPoint(slot + 1 + int32(in.Off))
		}
	}
	for _, slot := range c.links {
		if d, ok := Distance(c.insns[slot]); ok {
			c.addPoint(slot + 1 + d)
		}
	}
	c.points = c.points[:0]
	for w, set := range c.set {
		for ; set != 0; set &= set - 1 {
			slot := int32(64*w + bits.TrailingZeros64(set))
			c.points = append(c.points, slot)
			c.events[c.at[slot].events()] |= splits
		}
	}
}

func (c *charger) addPoint(slot int32) { c.set[slot/64] |= 1 << (slot % 64) }

// charge walks backward over events and charge points.
func (c *charger) charge(list []Charge) []Charge {
	first := len(list)
	left := len(c.points) // charge points in front of what is done
	list = slices.Grow(list, left)[:first+left]
	var end int32
	for k := len(c.events) - 1; k >= 0; k-- {
		slot := c.events[k] &^ splits
		in := &c.insns[slot]
		number := c.number(slot)
		d := int32(in.Off)
		if in.Op == abi.OpGotol {
			d = in.Imm
		}
		if in.Op == abi.OpExit || d < 0 && goesOn[in.Op] == 0 {
			end = number + 1
		} else {
			// Where a branch leads backward, it is as if it led to the next
			// instruction.
			end = most(end&goesOn[in.Op], c.jump(number, slot+1+most(d, 0)))
		}
		c.ends[k] = end
		if c.events[k] >= 0 {
			continue
		}
		after := int32(-1)
		if k > 0 {
			after = c.events[k-1] &^ splits
		}
		for ; left > 0 && c.points[left-1] > after; left-- {
			number := c.number(c.points[left-1])
			list[first+left-1] = Charge{Slot: c.points[left-1], N: end - number}
			end = number
		}
	}
	return list
}

// most is the greater one of a and b, which are not far apart. Unlike max it
// is compiled without a branch.
func most(a, b int32) int32 {
	d := b - a
	return a + d&^(d>>31)
}

// goesOn is -1 for the opcodes of branches.
var goesOn = func() (list [256]int32) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if form := &tables.Forms[f]; form.Flow == tables.FlowBranch {
			list[form.Op] = -1
		}
	}
	return list
}()

// jump returns where a way ends that leads forward to a slot, from the
// instruction with the given number.
func (c *charger) jump(from, slot int32) int32 {
	k := c.at[slot].events()
	if k >= len(c.events) {
		return from + 1 // behind the last instruction: a branch there is never taken
	}
	end := c.ends[k]
	if c.events[k] < 0 {
		// Maybe a charge point lies in between, or is the slot itself.
		if at, _ := slices.BinarySearch(c.points, slot); at < len(c.points) && c.points[at] <= c.events[k]&^splits {
			end = c.number(c.points[at])
		}
	}
	return end - (c.number(slot) - from - 1)
}
