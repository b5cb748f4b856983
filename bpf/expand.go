package bpf

import (
	"fmt"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/tables"
)

// Expand is Apply for a rewrite of a great part of a program, where a Patch
// for each slot would cost more than the rewrite itself. The caller has laid
// out the new program, np.Insns: slot i of p became
//
//	np.Insns[index[i]] ... np.Insns[index[i+1]-1]
//
// of which the last is what the instruction became. Every slot became at
// least one instruction, and index has one entry more than p has slots. So
// each slot has a Patch with Own in the last place.
//
// As with Apply, own instructions keep their marks and the others are marked
// Inserted, a jump to slot i leads to index[i] now, and the distance of an own
// instruction is set so that it leads where the old one led. Expand sets
// np.Flags and np.Origin, in the memory that they have if that is enough. p
// and index are not changed. Time goes with the slots, old and new.
//
// The error is an *Error about a slot of p, and wraps ErrRange if a distance
// doesn't fit its field any more. np is of no use then.
func Expand(np, p *Program, index []int32) error {
	n := len(p.Insns)
	if len(index) != n+1 || index[0] != 0 || int(index[n]) != len(np.Insns) {
		return &Error{Slot: -1, Reason: fmt.Sprintf("expand: the index doesn't fit %d slots that became %d", n, len(np.Insns))}
	}
	if i := expandOrigin(np, p, index); i < n {
		return &Error{Slot: i, Insn: p.Insns[i], Reason: "expand: becomes nothing"}
	}
	expandFlags(np, p, index)
	list := slotLists.Get().(*[]int32)
	defer slotLists.Put(list)
	*list = slices.Grow((*list)[:0], n+1)[:n+1]
	m := mover{old: p, index: index}
	for _, slot := range reaching(p.Insns, *list) {
		if err := m.expanded(np.Insns, int(slot)); err != nil {
			return err
		}
	}
	return nil
}

// expandOrigin sets origins. It stops at a slot that becomes nothing.
func expandOrigin(np, p *Program, index []int32) (done int) {
	// Most slots become a few. Four are written at once, and the next slot
	// overwrites what was too much: asking how many would cost more, since it
	// can't be foreseen.
	const few = 4
	n := len(np.Insns)
	list := slices.Grow(np.Origin[:0], n+few)[:n+few]
	np.Origin = list[:n]
	at, origin := 0, p.Origin
	for i, end := range index[1:] {
		if int(end) <= at {
			return i
		}
		from := int32(i)
		if origin != nil {
			from = origin[i]
		}
		o := (*[few]int32)(list[at:])
		o[0], o[1], o[2], o[3] = from, from, from, from
		for at += few; at < int(end); at++ {
			list[at] = from
		}
		at = int(end)
	}
	return len(p.Insns)
}

// expandFlags sets flags.
func expandFlags(np, p *Program, index []int32) {
	n := len(np.Insns)
	flags := slices.Grow(np.Flags[:0], n)[:n]
	np.Flags = flags
	if n == 0 {
		return
	}
	flags[0] = Inserted
	for done := 1; done < n; done *= 2 {
		copy(flags[done:], flags[:done])
	}
	if p.Flags == nil {
		for _, end := range index[1:] {
			flags[end-1] = 0
		}
		return
	}
	for i, end := range index[1:] {
		flags[end-1] = p.Flags[i]
	}
}

// slotLists holds scratch memory of Expand.
var slotLists = sync.Pool{New: func() any { return new([]int32) }}

// reaching lists the slots that may have a distance, at the beginning of
// list, which has room for one more than there are. It doesn't branch where
// they are, as that can't be foreseen.
func reaching(insns []Insn, list []int32) []int32 {
	n := 0
	for i := range insns {
		list[n] = int32(i)
		if reaches[insns[i].Op] != reachNothing {
			n++
		}
	}
	return list[:n]
}

// expanded mends the distance of what an old slot became.
func (m *mover) expanded(insns []Insn, slot int) error {
	insn, at := m.old.Insns[slot], int(m.index[slot+1])-1
	own := &insns[at]
	if reaches[insn.Op] == reachOff && reaches[own.Op] == reachOff {
		// The usual case of mend.
		if t := slot + 1 + int(insn.Off); t >= 0 && t < len(m.index) {
			d := int(m.index[t]) - at - 1
			if d != int(int16(d)) {
				return m.far(slot, "off", d, 16)
			}
			own.Off = int16(d)
			return nil
		}
	}
	if _, ok := Distance(insn); !ok {
		return nil
	}
	if _, ok := Distance(*own); !ok {
		return &Error{Slot: slot, Insn: insn, Reason: fmt.Sprintf("expand: %s has no distance any more", Text(*own))}
	}
	mended, err := m.mend(slot, *own, at)
	*own = mended
	return err
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
