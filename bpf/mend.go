package bpf

import (
	"fmt"
	"math/bits"

	"github.com/bpfjit/bpfjit/tables"
)

// Mender sets the distances of a great part of a program that is rewritten, for
// which Apply would want more patches than the rewrite is worth. The caller makes
// the new program: slot i of p becomes
//
//	np.Insns[index[i]] ... np.Insns[index[i+1]-1]
//
// of which the last is what the instruction became. Every slot becomes at least
// one instruction. So each slot has a Patch with Own in the last place.
//
// As with Apply, a jump leads where the old one led, and a jump to slot i leads to
// index[i] now. Slots without a distance may be added, too. Time goes with the
// number of slots added.
//
// While the new program grows, the Mender can follow it: what it works on is still
// in the processor's caches then.
type Mender struct {
	old *Program
	// late lists slots whose distance isn't in off, or leads to what was not known yet.
	late []int32
}

// Start begins with a program, in the memory of an older one.
func (m *Mender) Start(p *Program) {
	m.old, m.late = p, m.late[:0]
}

// Add mends slots from a multiple of 64 on: those for which jumps has a bit, bit
// i%64 of jumps[i/64] for i slots further. np and index are as far known as
// index goes: its last element is where the next slot will be. What leads further
// is done by Finish.
//
// The error is an *Error about a slot of p, and wraps ErrRange if a distance
// doesn't fit its field any more. np is of no use then. Of a program that was
// not checked, jumps are refused that lead to no instruction and might in np;
// one to its end leads to the end again.
func (m *Mender) Add(np []Insn, index []int32, first int, jumps []uint64) error {
	return m.add(np, index, first, jumps)
}

// addGeneric does what Add does. If an error follows what was added, that may be added
// again.
func (m *Mender) addGeneric(np []Insn, index []int32, first int, jumps []uint64) error {
	insns := m.old.Insns
	known := insns[:min(max(len(index)-1, 0), len(insns))]
	for k, set := range jumps {
		for ; set != 0; set &= set - 1 {
			slot := first + blockSlots*k + bits.TrailingZeros64(set)
			if uint(slot) >= uint(len(known)) {
				return &Error{Slot: -1, Reason: fmt.Sprintf("mend: has no slot %d yet", slot)}
			}
			in := &known[slot]
			to, at := slot+1+int(in.Off), int(index[slot+1])-1
			if uint(at) >= uint(len(np)) {
				return &Error{Slot: slot, Insn: *in, Reason: "mend: becomes nothing"}
			}
			own := &np[at]
			if uint(to) >= uint(len(known)) || reaches[in.Op]&reaches[own.Op] != reachOff || known[to].Op == 0 {
				m.late = append(m.late, int32(slot))
				continue
			}
			// What mover.mend does, in the usual case.
			d := int(index[to]) - at - 1
			if d != int(int16(d)) {
				return (&mover{old: m.old}).far(slot, "off", d, 16)
			}
			own.Off = int16(d)
		}
	}
	return nil
}

// Finish mends what is left, when all of the new program is there. index has one
// entry more than p has slots.
func (m *Mender) Finish(np *Program, index []int32) error {
	p := m.old
	m.old = nil
	n := len(p.Insns)
	if len(index) != n+1 || index[0] != 0 || int(index[n]) != len(np.Insns) {
		return &Error{Slot: -1, Reason: fmt.Sprintf("mend: the index doesn't fit %d slots that became %d", n, len(np.Insns))}
	}
	if len(m.late) > 0 {
		return m.finishLate(p, np, index)
	}
	return nil
}

// finishLate mends what is late.
func (m *Mender) finishLate(p, np *Program, index []int32) error {
	all := mover{old: p}
	all.index = index
	for _, slot := range m.late {
		if err := all.mendOther(np, int(slot)); err != nil {
			return err
		}
	}
	return nil
}

// mendOther sets the distance of what an old slot became, if it has one.
func (m *mover) mendOther(np *Program, slot int) error {
	insn, at := m.old.Insns[slot], int(m.index[slot+1])-1
	own := &np.Insns[at]
	d, form, ok := distance(insn)
	if !ok {
		return nil
	}
	old := m.old.Insns
	if to := slot + 1 + int(d); !toFunction(form) && (uint(to) > uint(len(old)) || to < len(old) && old[to].Op == 0) {
		return nowhere(m.old, slot, to)
	}
	if _, ok := Distance(*own); !ok {
		return &Error{Slot: slot, Insn: insn, Reason: fmt.Sprintf("mend: %s has no distance any more", Text(*own))}
	}
	mended, err := m.mend(slot, *own, at)
	if err != nil {
		return err
	}
	*own = mended
	return nil
}

// nowhere is the error about a jump that leads to no instruction, but might in
// the new program.
func nowhere(p *Program, slot, to int) error {
	return &Error{Slot: slot, Insn: p.Insns[slot], Reason: fmt.Sprintf("leads to slot %d, where no instruction is", to)}
}

// reach says where the instructions of an opcode keep a distance.
type reach uint8

const (
	reachNothing reach = iota
	reachOff           // all of them in off
	reachForm          // some of them, in off or imm
)

// reaches is the reach of each opcode.
var reaches = func() (list [256]reach) {
	var other [256]bool // some form has no distance in off
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		off := form.Off.Use == tables.UseDistance
		other[form.Op] = other[form.Op] || !off
		if off || form.Imm.Use == tables.UseDistance {
			list[form.Op] = reachOff
		}
	}
	for op := range list {
		if list[op] == reachOff && other[op] {
			list[op] = reachForm
		}
	}
	return list
}()
