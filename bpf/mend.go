package bpf

import (
	"fmt"

	"github.com/bpfjit/bpfjit/tables"
)

// Mend is the last step of a rewrite of a great part of a program, for which
// Apply would want more patches than the rewrite is worth. The caller has made
// the new program: slot i of p became
//
//	np.Insns[index[i]] ... np.Insns[index[i+1]-1]
//
// of which the last is what the instruction became. Every slot became at
// least one instruction, and index has one entry more than p has slots. So
// each slot has a Patch with Own in the last place.
//
// Mend sets the distances of what the listed slots of p became: as with Apply,
// it leads where the old one led, and a jump to slot i leads to index[i] now.
// Slots without a distance may be listed, too. Time goes with their number.
//
// The error is an *Error about a slot of p, and wraps ErrRange if a distance
// doesn't fit its field any more. np is of no use then. Of a program that was
// not checked, jumps are refused that lead to no instruction and might in np;
// one to its end leads to the end again.
func Mend(np, p *Program, index, slots []int32) error {
	n := len(p.Insns)
	if len(index) != n+1 || index[0] != 0 || int(index[n]) != len(np.Insns) {
		return &Error{Slot: -1, Reason: fmt.Sprintf("mend: the index doesn't fit %d slots that became %d", n, len(np.Insns))}
	}
	m := mover{old: p, index: index}
	for _, slot := range slots {
		insn, at := p.Insns[slot], int(index[slot+1])-1
		if uint(at) >= uint(len(np.Insns)) {
			return &Error{Slot: int(slot), Insn: insn, Reason: "mend: becomes nothing"}
		}
		own := &np.Insns[at]
		to := int(slot) + 1 + int(insn.Off)
		if reaches[insn.Op] != reachOff || reaches[own.Op] != reachOff || uint(to) > uint(n) {
			if err := m.mendOther(np, int(slot)); err != nil {
				return err
			}
			continue
		}
		if to < n && p.Insns[to].Op == 0 {
			return nowhere(p, int(slot), to)
		}
		// What mover.mend does, in the usual case.
		d := int(index[to]) - at - 1
		if d != int(int16(d)) {
			return m.far(int(slot), "off", d, 16)
		}
		own.Off = int16(d)
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
	*own = mended
	return err
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
