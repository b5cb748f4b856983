package bpf

import (
	"fmt"
	"sort"

	"github.com/bpfjit/bpfjit/tables"
)

// mover knows where the slots of a program went.
type mover struct {
	entries
	old *Program
}

// entries says where slots went: slot i to index[i], in front of which may be what
// Enter patches inserted.
type entries struct {
	index []int32
	enter []entry // by slot
}

// entered returns where a call of the function at an old slot leads.
func (e *entries) entered(slot int) int {
	at := int(e.index[slot])
	if len(e.enter) > 0 {
		i := sort.Search(len(e.enter), func(i int) bool { return e.enter[i].slot >= slot })
		if i < len(e.enter) && e.enter[i].slot == slot {
			at -= e.enter[i].size
		}
	}
	return at
}

// entry says how many instructions stand in front of index[slot] that jumps
// pass by.
type entry struct{ slot, size int }

// mend returns what becomes of insn, which stood at an old slot and now
// stands at a new one: the distance of its old place counts.
func (m *mover) mend(slot int, insn Insn, at int) (Insn, *Error) {
	d, _, ok := distance(m.old.Insns[slot])
	if !ok {
		return insn, nil
	}
	_, f, _ := distance(insn)
	t := int64(slot) + 1 + int64(d)
	if t < 0 || t > int64(len(m.old.Insns)) {
		// In a checked program only an address constant of a translated
		// one, which leads to another function.
		return insn, nil
	}
	to := int(m.index[t])
	if toFunction(f) {
		to = m.entered(int(t))
	}
	nd := to - at - 1
	if f.Off.Use == tables.UseDistance {
		if nd != int(int16(nd)) {
			return insn, m.far(slot, "off", nd, 16)
		}
		insn.Off = int16(nd)
		return insn, nil
	}
	if nd != int(int32(nd)) {
		return insn, m.far(slot, "imm", nd, 32)
	}
	insn.Imm = int32(nd)
	return insn, nil
}

func (m *mover) far(slot int, field string, d, bits int) *Error {
	return &Error{Slot: slot, Insn: m.old.Insns[slot], Field: field, Err: ErrRange,
		Reason: fmt.Sprintf("would be %d, which %d bits don't hold", d, bits)}
}
