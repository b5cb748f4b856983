package bpf

import (
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Patch is a change of a program: instructions that replace the one in a
// slot, or that go in front of it.
//
//	Own     what stands there then         a jump to Slot  flows in, or calls
//	Enter   Insns..., the instruction      the instruction Insns[0]
//	Before  Insns..., the instruction      Insns[0]        Insns[0]
//	0 to n  Insns, and Insns[Own] is       Insns[0]        Insns[0]
//	        what the instruction became
//
// Insns are marked Inserted, but for Insns[Own], which keeps the marks that
// the instruction had. Distances in Insns count in the new program and stay
// as they are. The exception is Insns[Own]: if the instruction had a
// distance, Insns[Own] leads where the instruction led, whatever distance is
// written there. So this hides the 5 in "if r1 > 5 goto -3":
//
//	Patch{Slot: s, Own: 2, Insns: {r11 = 12, r11 ^= 9, if r1 > r11 goto -3}}
type Patch struct {
	Slot  int
	Own   int
	Insns []Insn
}

// Values of Patch.Own for patches that leave the instruction as it is.
const (
	Before = -1 // in front of the instruction
	Enter  = -2 // on the way into the slot from the one before, or by a call
)

// Apply makes all changes at once, and mends every branch, jump, call of a
// function and address constant. It takes time in proportion to the old and
// the new slots. The patches are ordered by Slot; at one slot those with
// Enter come first, then those with Before, then at most one with an own
// instruction. p is not changed.
//
// index tells where each slot of p is in the new program: a jump to slot i
// leads to index[i] now. index[len(p.Insns)] is the new length.
//
// The error is an *Error about a slot of p. It wraps ErrRange if a distance
// doesn't fit its field any more. The halves of a 64-bit constant stay
// together: either both or none are replaced, and nothing goes between them.
func Apply(p *Program, patches []Patch) (np *Program, index []int32, err error) {
	r := new(Patched)
	if err := r.Apply(p, patches); err != nil {
		return nil, nil, err
	}
	return &r.Program, r.Index, nil
}

// Patched is what Apply makes.
type Patched struct {
	Program Program
	Index   []int32
	// enter lists what Enter patches insert, by slot. origin has the origins of
	// Program if there are such.
	enter  []entry
	origin []int32

	functions functions // see MoveFunctions
}

// Apply sets r to p with all changes, see the function Apply. It uses the
// memory that r has again. With an error nothing in r is of use.
func (r *Patched) Apply(p *Program, patches []Patch) error {
	s := surveyOf(p)
	defer s.release()
	return r.ApplySurveyed(s, patches)
}

// ApplySurveyed does it for the program that was surveyed.
func (r *Patched) ApplySurveyed(s *Survey, patches []Patch) error {
	p := s.Program()
	if err := checkPatches(p, patches); err != nil {
		return err
	}
	p = p.Flat()
	m := mover{old: p, patches: patches, origin: r.origin}
	m.index, m.enter = resize(r.Index, len(p.Insns)+1), r.enter[:0]
	m.layOut()
	r.Index, r.enter = m.index, m.enter
	if m.length > math.MaxInt32 {
		return &Error{Slot: -1, Reason: fmt.Sprintf("has %d slots when patched", m.length)}
	}
	err := m.move(&r.Program, s)
	r.origin = m.origin
	return err
}

// rank orders the patches of one slot.
func (p *Patch) rank() int {
	switch p.Own {
	case Enter:
		return 0
	case Before:
		return 1
	}
	return 2
}

// checkPatches refuses what Apply's comment forbids.
func checkPatches(p *Program, patches []Patch) error {
	replaced := -2                  // the slot replaced last
	second := func(slot int) bool { // of a constant; slots are looked at in order
		return slot > 0 && p.Insns[slot].Op == 0 && p.Insns[slot-1].Op == abi.OpLdImm64
	}
	for k := range patches {
		t := &patches[k]
		if t.Slot < 0 || t.Slot >= len(p.Insns) {
			return &Error{Slot: -1, Reason: fmt.Sprintf("has no slot %d to patch", t.Slot)}
		}
		bad := func(format string, args ...any) error {
			return &Error{Slot: t.Slot, Insn: p.Insns[t.Slot], Reason: "patch: " + fmt.Sprintf(format, args...)}
		}
		if t.Own < Enter || t.Own >= len(t.Insns) && t.Own >= 0 {
			return bad("own instruction %d of %d", t.Own, len(t.Insns))
		}
		if k > 0 {
			if b := &patches[k-1]; b.Slot > t.Slot || b.Slot == t.Slot && (b.rank() > t.rank() || b.rank() == 2) {
				return bad("out of order")
			}
		}
		own := t.Own >= 0
		if !own {
			if second(t.Slot) {
				return bad("goes between the halves of a 64-bit constant")
			}
			continue
		}
		if _, ok := Distance(p.Insns[t.Slot]); ok {
			if _, ok := Distance(t.Insns[t.Own]); !ok {
				return bad("%s has no distance any more", Text(t.Insns[t.Own]))
			}
		}
		if second(t.Slot) && replaced != t.Slot-1 {
			return bad("replaces one half of a 64-bit constant")
		}
		if t.Slot+1 < len(p.Insns) && second(t.Slot+1) && !replaces(patches[k+1:], t.Slot+1) {
			return bad("replaces one half of a 64-bit constant")
		}
		replaced = t.Slot
	}
	return nil
}

// replaces reports whether the first of the patches replaces the slot.
func replaces(patches []Patch, slot int) bool {
	return len(patches) > 0 && patches[0].Slot == slot && patches[0].Own >= 0
}

// mover makes the new program.
type mover struct {
	old     *Program
	patches []Patch
	entries
	length int
	origin []int32
}

// entry says how many instructions stand in front of index[slot] that jumps
// pass by.
type entry struct{ slot, size int }

// run returns how many slots from slot on have no patch, if patch k is the
// next one.
func (m *mover) run(slot, k int) int {
	if k < len(m.patches) {
		return m.patches[k].Slot - slot
	}
	return len(m.old.Insns) - slot
}

// layOut fills in index, enter and length.
func (m *mover) layOut() {
	n := len(m.old.Insns)
	k, at := 0, 0
	for slot := 0; ; slot++ {
		run := m.run(slot, k)
		count(m.index[slot:slot+run], int32(at))
		slot, at = slot+run, at+run
		if slot == n {
			break
		}
		enter, size := 0, 1
		for ; k < len(m.patches) && m.patches[k].Slot == slot; k++ {
			switch t := &m.patches[k]; {
			case t.Own == Enter:
				enter += len(t.Insns)
			case t.Own == Before:
				size += len(t.Insns)
			default:
				size += len(t.Insns) - 1
			}
		}
		at += enter
		m.index[slot] = int32(at)
		if enter > 0 {
			m.enter = append(m.enter, entry{slot, enter})
		}
		at += size
	}
	m.index[n] = int32(at)
	m.length = at
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

// entries says where slots begin that Enter patches insert something in front
// of.
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

// move makes the new program. Most slots have no patch: those are copied in
// runs, then of those that lead somewhere the distance is set, and then what is
// patched is put between.
func (m *mover) move(np *Program, s *Survey) error {
	flags := np.Flags
	np.Insns = resize(np.Insns, m.length)
	np.Flags, np.Origin, np.Index = nil, m.old.Origin, nil
	if m.old.Flags != nil || len(m.patches) > 0 {
		np.Flags = resize(flags, m.length)
	}
	switch {
	case len(m.enter) > 0: // index says nothing about what is in front of it
		m.origin = resize(m.origin, m.length)
		np.Origin = m.origin
	case len(m.patches) > 0:
		np.Index = m.index
	}
	m.moveRuns(np)
	if len(m.patches) == 0 {
		return nil // no distance changes
	}
	unpatched, patched := m.mendRuns(s.blocks, np), m.place(np)
	if patched == nil || unpatched != nil && unpatched.Slot < patched.Slot {
		patched = unpatched
	}
	if patched == nil {
		return nil
	}
	return patched
}

// moveRuns copies the slots that have no patch.
func (m *mover) moveRuns(np *Program) {
	for slot, k := 0, 0; slot < len(m.old.Insns); slot++ {
		if run := m.run(slot, k); run > 0 {
			m.moveRun(np, slot, slot+run, int(m.index[slot]))
			slot += run
		}
		for k < len(m.patches) && m.patches[k].Slot == slot {
			k++
		}
	}
}

// moveRun copies the slots from start up to end.
func (m *mover) moveRun(np *Program, start, end, at int) {
	copy(np.Insns[at:], m.old.Insns[start:end])
	if np.Flags != nil {
		if flags := np.Flags[at:][:end-start]; m.old.Flags != nil {
			copy(flags, m.old.Flags[start:end])
		} else {
			clear(flags)
		}
	}
	if len(m.enter) > 0 {
		if origin := np.Origin[at:][:end-start]; m.old.Origin != nil {
			copy(origin, m.old.Origin[start:end])
		} else {
			count(origin, int32(start))
		}
	}
}

// mendRuns sets the distances of the slots that have no patch. What it does to
// others, place does again.
func (m *mover) mendRuns(blocks []block, np *Program) *Error {
	if err := m.mendJumps(blocks, np); err != nil {
		return err
	}
	for b := range blocks {
		for set := blocks[b].others; set != 0; set &= set - 1 {
			slot := b*blockSlots + bits.TrailingZeros64(set)
			if !leads[m.old.Insns[slot].Op] {
				continue // a division
			}
			if err := m.mendRun(np, slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// mendJumpsGeneric sets the distances of the jumps in the blocks from next up
// to stop.
func (m *mover) mendJumpsGeneric(blocks []block, np *Program, next, stop int) *Error {
	insns, index, moved := m.old.Insns, m.index, np.Insns
	for b := next; b < stop; b++ {
		for set := blocks[b].jumps; set != 0; set &= set - 1 {
			slot := b*blockSlots + bits.TrailingZeros64(set)
			to, at := slot+1+int(insns[slot].Off), index[slot]
			if uint(to) < uint(len(index)) {
				// What mend does, in the usual case.
				if d := index[to] - at - 1; d == int32(int16(d)) {
					moved[at].Off = int16(d)
					continue
				}
			}
			if err := m.mendRun(np, slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// mendRun sets the distance of a slot, unless it has a patch.
func (m *mover) mendRun(np *Program, slot int) *Error {
	k := sort.Search(len(m.patches), func(k int) bool { return m.patches[k].Slot >= slot })
	if k < len(m.patches) && m.patches[k].Slot == slot {
		return nil
	}
	at := int(m.index[slot])
	mended, err := m.mend(slot, np.Insns[at], at)
	np.Insns[at] = mended
	return err
}

// place puts the patches where they belong, and the instructions that have some.
func (m *mover) place(np *Program) *Error {
	for k := 0; k < len(m.patches); {
		slot := m.patches[k].Slot
		at := m.entered(slot)
		own, ownAt := m.old.Insns[slot], -1
		for ; k < len(m.patches) && m.patches[k].Slot == slot; k++ {
			t := &m.patches[k]
			for i, in := range t.Insns {
				if i == t.Own {
					own, ownAt = in, at
				}
				m.put(np, at, in, Inserted, slot)
				at++
			}
		}
		if ownAt < 0 {
			ownAt = at
		}
		own, err := m.mend(slot, own, ownAt)
		if err != nil {
			return err
		}
		m.put(np, ownAt, own, m.old.Flag(slot), slot)
	}
	return nil
}

// put sets a slot of the new program, which comes from an old one.
func (m *mover) put(np *Program, at int, in Insn, f Flag, slot int) {
	np.Insns[at], np.Flags[at] = in, f
	if len(m.enter) > 0 {
		np.Origin[at] = int32(m.old.Source(slot))
	}
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
