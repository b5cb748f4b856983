package bpf

import (
	"fmt"
	"math/bits"
	"sort"

	"github.com/bpfjit/bpfjit/tables"
)

// mover makes the new program in parts. How far a jump leads depends on where its
// target went, so distances, and the patches, which have some, follow the slots
// that are moved: so far behind that most jumps lead to slots that have their
// place, and not so far that the caches have lost them.
//
//	       placed, mended                       moved
//	old    |------------------|---- behind --->|------------|
//
// What leads further is mended at the end, and so is what has 32 bits.
type mover struct {
	old     *Program
	blocks  []block // of a survey of old
	patches []Patch
	entries
	np *Program
	// origins is set if the new program has origins of its own.
	origins bool

	// slot comes next to be moved, to at, and patch is the next patch.
	slot, at, patch int
	// block comes next to have its jumps mended, and placed is the patch to be
	// placed next. late are slots that lead further than is known.
	block, placed int
	late          []int32
}

const (
	// partBlocks is how many blocks make a part. Slots are moved the faster the
	// longer that goes on.
	partBlocks = 256
	// behind is by how many blocks mending follows.
	behind = 1 << 13 / blockSlots
)

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

// move makes the program. others are those of the survey.
func (m *mover) move(others []Other) error {
	n := len(m.old.Insns)
	m.slot, m.at, m.patch, m.block, m.placed = 0, 0, 0, 0, 0
	m.enter, m.late = m.enter[:0], m.late[:0]
	for m.slot < n {
		m.part(min(m.slot+partBlocks*blockSlots, n))
		if m.slot < n && len(m.patches) > 0 {
			if err := m.settle(m.slot/blockSlots - behind); err != nil {
				return err
			}
		}
	}
	m.index[n] = int32(m.at)
	if len(m.patches) == 0 {
		return nil // no distance changes
	}
	if err := m.settle(len(m.blocks)); err != nil {
		return err
	}
	return m.mendFar(others)
}

// part moves the slots up to stop that have no patch, and makes room for the
// others.
func (m *mover) part(stop int) {
	for {
		next := stop
		if m.patch < len(m.patches) {
			next = min(next, m.patches[m.patch].Slot)
		}
		if m.slot < next {
			m.moveRun(next)
			m.at += next - m.slot
			m.slot = next
		}
		if m.slot == stop {
			return
		}
		enter, size := 0, 1
		for ; m.patch < len(m.patches) && m.patches[m.patch].Slot == m.slot; m.patch++ {
			switch t := &m.patches[m.patch]; {
			case t.Own == Enter:
				enter += len(t.Insns)
			case t.Own == Before:
				size += len(t.Insns)
			default:
				size += len(t.Insns) - 1
			}
		}
		m.at += enter
		m.index[m.slot] = int32(m.at)
		if enter > 0 {
			m.enter = append(m.enter, entry{m.slot, enter})
		}
		m.at += size
		m.slot++
	}
}

// moveRunGeneric moves the slots up to next, none of which has a patch.
func (m *mover) moveRunGeneric(next int) {
	np, n := m.np, next-m.slot
	count(m.index[m.slot:next], int32(m.at))
	copy(np.Insns[m.at:], m.old.Insns[m.slot:next])
	if np.Flags != nil {
		if flags := np.Flags[m.at:][:n]; m.old.Flags != nil {
			copy(flags, m.old.Flags[m.slot:next])
		} else {
			clear(flags)
		}
	}
	if m.origins {
		if origin := np.Origin[m.at:][:n]; m.old.Origin != nil {
			copy(origin, m.old.Origin[m.slot:next])
		} else {
			count(origin, int32(m.slot))
		}
	}
}

// countGeneric fills s with from, from+1 and so on.
func countGeneric(s []int32, from int32) {
	for len(s) >= 8 {
		e := (*[8]int32)(s)
		e[0], e[1], e[2], e[3] = from, from+1, from+2, from+3
		e[4], e[5], e[6], e[7] = from+4, from+5, from+6, from+7
		s, from = s[8:], from+8
	}
	for i := range s {
		s[i] = from + int32(i)
	}
}

// settle sets the distances of the jumps in the blocks in front of stop, and
// puts the patches of their slots where they belong.
func (m *mover) settle(stop int) error {
	if stop <= m.block {
		return nil
	}
	// What mending does to slots that have a patch, placing does again.
	jump := m.mendJumps(m.block, stop)
	m.block = stop
	patch := m.place(stop * blockSlots)
	if patch == nil || jump != nil && jump.Slot < patch.Slot {
		patch = jump
	}
	if patch == nil {
		return nil
	}
	return patch
}

// known returns up to which slot the index is known.
func (m *mover) known() int {
	if m.slot == len(m.old.Insns) {
		return m.slot + 1 // the end has an element, too
	}
	return m.slot
}

// mendJumpsGeneric sets the distances of the jumps in the blocks from next up
// to stop.
func (m *mover) mendJumpsGeneric(next, stop int) *Error {
	insns, index, moved, known := m.old.Insns, m.index, m.np.Insns, m.known()
	for b := next; b < stop; b++ {
		for set := m.blocks[b].jumps; set != 0; set &= set - 1 {
			slot := b*blockSlots + bits.TrailingZeros64(set)
			to, at := slot+1+int(insns[slot].Off), index[slot]
			if to >= known {
				m.late = append(m.late, int32(slot))
				continue
			}
			if to >= 0 {
				// What mend does, in the usual case.
				if d := index[to] - at - 1; d == int32(int16(d)) {
					moved[at].Off = int16(d)
					continue
				}
			}
			if k := m.patchOf(slot); k < len(m.patches) && m.patches[k].Slot == slot {
				continue // index says where the patch is
			}
			mended, err := m.mend(slot, moved[at], int(at))
			if err != nil {
				return err
			}
			moved[at] = mended
		}
	}
	return nil
}

// patchOf returns the first patch of a slot or of those behind.
func (m *mover) patchOf(slot int) int {
	return sort.Search(len(m.patches), func(k int) bool { return m.patches[k].Slot >= slot })
}

// place puts the patches of the slots in front of stop where they belong, and
// the instructions that have some.
func (m *mover) place(stop int) *Error {
	np := m.np
	for m.placed < len(m.patches) && m.patches[m.placed].Slot < stop {
		slot := m.patches[m.placed].Slot
		first := m.entered(slot)
		own, at, ownAt := m.old.Insns[slot], first, -1
		for ; m.placed < len(m.patches); m.placed++ {
			t := &m.patches[m.placed]
			if t.Slot != slot {
				break
			}
			if t.Own >= 0 {
				own, ownAt = t.Insns[t.Own], at+t.Own
			}
			for _, in := range t.Insns {
				np.Insns[at], np.Flags[at] = in, Inserted
				at++
			}
		}
		if ownAt < 0 {
			ownAt = at
			at++
		}
		// Of jumps that lead too far for now the distance is mended at the end.
		if old := m.old.Insns[slot]; reaches[old.Op] == reachOff && slot+1+int(old.Off) < m.known() {
			var err *Error
			if own, err = m.mend(slot, own, ownAt); err != nil {
				return err
			}
		}
		np.Insns[ownAt], np.Flags[ownAt] = own, m.old.Flag(slot)
		if m.origins {
			origin := int32(m.old.Source(slot))
			for i := first; i < at; i++ {
				np.Origin[i] = origin
			}
		}
	}
	return nil
}

// mendFar sets the distances of jumps that were late, and those of 32 bits, in
// whose way the whole program may be.
func (m *mover) mendFar(others []Other) error {
	for _, slot := range m.late {
		if err := m.mendOwn(int(slot)); err != nil {
			return err
		}
	}
	for _, o := range others {
		if op := o.Insn.Op; leads[op] && reaches[op] != reachOff {
			if err := m.mendOwn(int(o.Slot)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mendOwn sets the distance of the instruction of an old slot.
func (m *mover) mendOwn(slot int) error {
	at := m.own(slot)
	mended, err := m.mend(slot, m.np.Insns[at], at)
	if err != nil {
		return err
	}
	m.np.Insns[at] = mended
	return nil
}

// own returns where the instruction of an old slot is.
func (m *mover) own(slot int) int {
	at := m.entered(slot)
	for _, t := range m.patches[m.patchOf(slot):] {
		if t.Slot != slot {
			break
		}
		if t.Own >= 0 {
			return at + t.Own
		}
		at += len(t.Insns)
	}
	return at
}

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
