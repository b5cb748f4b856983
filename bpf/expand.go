package bpf

import (
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
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
// each slot has a Patch with Own in the last place. np.Insns has its full
// length; if write isn't nil, Expand goes from block to block and calls it
// before it needs the instructions that slots up to end became, so that they
// are still at hand when their distances are set. Its errors come back as they
// are.
//
// As with Apply, own instructions keep their marks and the others are marked
// Inserted, a jump to slot i leads to index[i] now, and the distance of an own
// instruction is set so that it leads where the old one led. Expand sets
// np.Flags and np.Origin, in the memory that they have if that is enough. p
// and index are not changed. Time goes with the slots, old and new.
//
// The error is an *Error about a slot of p, and wraps ErrRange if a distance
// doesn't fit its field any more. np is of no use then.
func Expand(np, p *Program, index []int32, write func(end int) error) error {
	n := len(p.Insns)
	if len(index) != n+1 || index[0] != 0 || int(index[n]) != len(np.Insns) {
		return &Error{Slot: -1, Reason: fmt.Sprintf("expand: the index doesn't fit %d slots that became %d", n, len(np.Insns))}
	}
	np.Flags = slices.Grow(np.Flags[:0], len(np.Insns))[:len(np.Insns)]
	np.Origin = slices.Grow(np.Origin[:0], len(np.Insns))[:len(np.Insns)]
	e := expander{np: np, p: p, mover: mover{old: p, index: index}}
	for start := 0; start < n; start += expandBlock {
		end := min(start+expandBlock, n)
		if err := e.marks(start, end); err != nil {
			return err
		}
		if write != nil {
			if err := write(end); err != nil {
				return err
			}
		}
		for _, slot := range e.listJumps(start, end) {
			if err := e.mend(int(slot)); err != nil {
				return err
			}
		}
	}
	return nil
}

// expandBlock is how many slots Expand goes over at a time.
const expandBlock = 1024

// expander does the work of Expand.
type expander struct {
	np, p *Program
	mover mover
	jumps [expandBlock + 1]int32
}

// marks sets the flags and origins of what slots start to end became.
//
// How many slots a slot becomes can't be foreseen, so no loop branches on it:
// flags first tell where groups end, and origins count that.
func (e *expander) marks(start, end int) error {
	index := e.mover.index
	first, last := index[start], index[end]
	if last <= first || int(last) > len(e.np.Insns) {
		last = int32(len(e.np.Insns)) // some slot is at fault
	}
	flags, origin, ends := e.np.Flags[first:last], e.np.Origin[first:last], index[start+1:end+1]
	if len(flags) > 0 {
		flags[0] = Inserted
	}
	for done := 1; done < len(flags); done *= 2 {
		copy(flags[done:], flags[:done])
	}
	at := first
	for i, end := range ends {
		if end <= at || end > last {
			return &Error{Slot: start + i, Insn: e.p.Insns[start+i], Reason: "expand: becomes nothing"}
		}
		at = end
		flags[end-first-1] = 0
	}
	from := int32(start)
	for i, f := range flags {
		origin[i] = from
		from += int32(f ^ Inserted)
	}
	if old := e.p.Origin; old != nil {
		for i, from := range origin {
			origin[i] = old[from]
		}
	}
	if old := e.p.Flags; old != nil {
		for i, end := range ends {
			flags[end-first-1] = old[start+i]
		}
	}
	return nil
}

// listJumps lists those of the slots start to end that may have a distance.
// Where they are can't be foreseen, so the loop doesn't branch on it.
func (e *expander) listJumps(start, end int) []int32 {
	n := 0
	for i, insns := 0, e.p.Insns[start:end]; i < len(insns); i++ {
		e.jumps[n] = int32(start + i)
		if reaches[insns[i].Op] != reachNothing {
			n++
		}
	}
	return e.jumps[:n]
}

// mend sets the distance of what an old slot became.
func (e *expander) mend(slot int) error {
	m := &e.mover
	insn, at := e.p.Insns[slot], int(m.index[slot+1])-1
	own := &e.np.Insns[at]
	if reaches[insn.Op] == reachOff && reaches[own.Op] == reachOff {
		// What mover.mend does, in the usual case.
		if t := slot + 1 + int(insn.Off); t >= 0 && t < len(m.index) {
			d := int(m.index[t]) - at - 1
			if d != int(int16(d)) {
				return m.far(slot, "off", d, 16)
			}
			own.Off = int16(d)
			return nil
		}
	}
	switch {
	case insn.Op == abi.OpCall && insn.Src() != abi.CallLocal,
		insn.Op == abi.OpLdImm64 && insn.Src() != abi.Imm64Func:
		return nil // most of them
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
