package bpf

import (
	"fmt"
	"math"
	"slices"
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
	if err := checkPatches(p, patches); err != nil {
		return nil, nil, err
	}
	m := mover{old: p, patches: patches}
	m.layOut()
	if m.length > math.MaxInt32 {
		return nil, nil, &Error{Slot: -1, Reason: fmt.Sprintf("has %d slots when patched", m.length)}
	}
	np, err = m.move()
	if err != nil {
		return nil, nil, err
	}
	return np, m.index, nil
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
	index   []int32
	length  int
	// enter lists what Enter patches insert, by slot.
	enter []entry
}

// entry says how many instructions stand in front of index[slot] that jumps
// pass by.
type entry struct{ slot, size int }

// layOut fills in index, enter and length.
func (m *mover) layOut() {
	n := len(m.old.Insns)
	m.index = make([]int32, n+1)
	k, at := 0, 0
	for slot := range n {
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

// entered returns where a call of the function at an old slot leads.
func (m *mover) entered(slot int) int {
	at := int(m.index[slot])
	if len(m.enter) > 0 {
		i := sort.Search(len(m.enter), func(i int) bool { return m.enter[i].slot >= slot })
		if i < len(m.enter) && m.enter[i].slot == slot {
			at -= m.enter[i].size
		}
	}
	return at
}

// move fills the new program.
func (m *mover) move() (*Program, error) {
	if len(m.patches) == 0 {
		return &Program{slices.Clone(m.old.Insns), slices.Clone(m.old.Flags), slices.Clone(m.old.Origin)}, nil
	}
	np := &Program{
		Insns:  make([]Insn, 0, m.length),
		Flags:  make([]Flag, 0, m.length),
		Origin: make([]int32, 0, m.length),
	}
	add := func(insns []Insn, slot int) {
		origin := int32(m.old.Source(slot))
		for _, i := range insns {
			np.Insns = append(np.Insns, i)
			np.Flags = append(np.Flags, Inserted)
			np.Origin = append(np.Origin, origin)
		}
	}
	k := 0
	for slot, insn := range m.old.Insns {
		var behind []Insn
		for ; k < len(m.patches) && m.patches[k].Slot == slot; k++ {
			t := &m.patches[k]
			if t.Own < 0 {
				add(t.Insns, slot)
				continue
			}
			add(t.Insns[:t.Own], slot)
			insn, behind = t.Insns[t.Own], t.Insns[t.Own+1:]
		}
		insn, err := m.mend(slot, insn, len(np.Insns))
		if err != nil {
			return nil, err
		}
		np.Insns = append(np.Insns, insn)
		np.Flags = append(np.Flags, m.old.Flag(slot))
		np.Origin = append(np.Origin, int32(m.old.Source(slot)))
		add(behind, slot)
	}
	return np, nil
}

// mend returns what becomes of insn, which stood at an old slot and now
// stands at a new one: the distance of its old place counts.
func (m *mover) mend(slot int, insn Insn, at int) (Insn, error) {
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

func (m *mover) far(slot int, field string, d, bits int) error {
	return &Error{Slot: slot, Insn: m.old.Insns[slot], Field: field, Err: ErrRange,
		Reason: fmt.Sprintf("would be %d, which %d bits don't hold", d, bits)}
}
