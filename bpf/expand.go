package bpf

import (
	"fmt"

	"github.com/bpfjit/bpfjit/tables"
)

// Expand is Apply for a rewrite of a great part of a program, where a patch
// for each slot would cost more than the rewrite itself. The caller has laid
// out the new program: old slot i became
//
//	insns[index[i]] ... insns[index[i+1]-1]
//
// of which the last is what the instruction became; index has one entry more
// than p has slots, and every slot became at least one instruction. So it is
// a Patch with Own in the last place, for each slot.
//
// As with Apply, own instructions keep their marks, the others are marked
// Inserted, a jump to slot i leads to index[i], and the distance of an own
// instruction is set so that it leads where the old one led. p and index are
// not changed; insns is, and becomes part of the result. Time goes with the
// number of slots.
//
// The error is an *Error about a slot of p, and wraps ErrRange if a distance
// doesn't fit its field any more.
func Expand(p *Program, index []int32, insns []Insn) (*Program, error) {
	n := len(p.Insns)
	if len(index) != n+1 || index[0] != 0 || int(index[n]) != len(insns) {
		return nil, &Error{Slot: -1, Reason: fmt.Sprintf("expand: the index doesn't fit %d slots that became %d", n, len(insns))}
	}
	for i := range p.Insns {
		if index[i] >= index[i+1] {
			return nil, &Error{Slot: i, Insn: p.Insns[i], Reason: "expand: becomes nothing"}
		}
	}
	np := &Program{Insns: insns}
	np.Flags = expandFlags(p, index)
	np.Origin = expandOrigin(p, index)
	m := mover{old: p, index: index}
	for slot, insn := range p.Insns {
		reach := reaches[insn.Op]
		if reach == reachNothing {
			continue
		}
		at := int(index[slot+1]) - 1
		own := &insns[at]
		if reach == reachOff && reaches[own.Op] == reachOff {
			// The usual case, in short.
			if t := slot + 1 + int(insn.Off); t >= 0 && t <= n {
				d := int(index[t]) - at - 1
				if d != int(int16(d)) {
					return nil, m.far(slot, "off", d, 16)
				}
				own.Off = int16(d)
			}
			continue
		}
		if _, ok := Distance(insn); !ok {
			continue
		}
		if _, ok := Distance(*own); !ok {
			return nil, &Error{Slot: slot, Insn: insn, Reason: fmt.Sprintf("expand: %s has no distance any more", Text(*own))}
		}
		var err error
		if *own, err = m.mend(slot, *own, at); err != nil {
			return nil, err
		}
	}
	return np, nil
}

// expandFlags marks what Expand inserts.
func expandFlags(p *Program, index []int32) []Flag {
	flags := make([]Flag, index[len(p.Insns)])
	for i := range flags {
		flags[i] = Inserted
	}
	if p.Flags == nil {
		for _, end := range index[1:] {
			flags[end-1] = 0
		}
		return flags
	}
	for i, end := range index[1:] {
		flags[end-1] = p.Flags[i]
	}
	return flags
}

// expandOrigin returns the source slots of what Expand makes.
func expandOrigin(p *Program, index []int32) []int32 {
	const few = 4
	length := int(index[len(p.Insns)])
	// Most slots become a few: those are written without asking how many,
	// and the next slot's overwrite what was too much.
	origin := make([]int32, length+few)
	for i := range p.Insns {
		source := int32(p.Source(i))
		at, end := int(index[i]), int(index[i+1])
		o := (*[few]int32)(origin[at:])
		o[0], o[1], o[2], o[3] = source, source, source, source
		for at += few; at < end; at++ {
			origin[at] = source
		}
	}
	return origin[:length:length]
}

// reach says where an opcode keeps a distance.
type reach uint8

const (
	reachNothing reach = iota
	reachOff           // all forms: in off
	reachForm          // some form, in off or imm
)

// reaches is what the forms of each opcode have in common.
var reaches = func() (list [256]reach) {
	var without [256]bool // some form has no distance in off
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if form.Off.Use != tables.UseDistance {
			without[form.Op] = true
		}
		if form.Off.Use == tables.UseDistance || form.Imm.Use == tables.UseDistance {
			list[form.Op] = reachOff
		}
	}
	for op := range list {
		if list[op] == reachOff && without[op] {
			list[op] = reachForm
		}
	}
	return list
}()

