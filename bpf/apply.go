package bpf

import (
	"fmt"
	"math"
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
	mover   mover
	// flags and origin are memory for those of Program.
	flags  []Flag
	origin []int32
	moved  MovedFuncs
}

// Apply sets r to p with all changes, see the function Apply. It uses the
// memory that r has again, so p must not be r's Program. That may share p's Origin:
// p must stay as it is as long as Program is in use. With an error nothing in r is
// of use.
func (r *Patched) Apply(p *Program, patches []Patch) error {
	s := surveyOf(p)
	defer s.release()
	return r.ApplySurveyed(s, patches)
}

// ApplySurveyed does it for the program that was surveyed.
func (r *Patched) ApplySurveyed(s *Survey, patches []Patch) error {
	p := s.Program()
	if p == &r.Program {
		panic("BUG: a program is patched in its own memory")
	}
	length, enters, err := checkPatches(s, patches)
	if err != nil {
		return err
	}
	if length > math.MaxInt32 {
		return &Error{Slot: -1, Reason: fmt.Sprintf("has %d slots when patched", length)}
	}
	p = p.Flat()
	np := &r.Program
	np.Insns = resize(np.Insns, length)
	np.Flags, np.Origin, np.Index = nil, p.Origin, nil
	if p.Flags != nil || len(patches) > 0 {
		r.flags = resize(r.flags, length)
		np.Flags = r.flags
	}
	r.Index = resize(r.Index, len(p.Insns)+1)
	switch {
	case enters: // index says nothing about what is in front of it
		r.origin = resize(r.origin, length)
		np.Origin = r.origin
	case len(patches) > 0:
		np.Index = r.Index
	}
	m := &r.mover
	m.old, m.blocks, m.patches, m.index, m.np, m.origins = p, s.blocks, patches, r.Index, np, enters
	err = m.move(s.others)
	m.old, m.blocks, m.patches = nil, nil, nil // the caller's
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

// checkPatches refuses what Apply's comment forbids. It returns how many slots the
// program will have, and whether there is something that jumps pass by.
func checkPatches(s *Survey, patches []Patch) (length int, enters bool, err error) {
	p := s.program
	length = len(p.Insns)
	replaced := -2                  // the slot replaced last
	second := func(slot int) bool { // of a constant
		return s.blocks[slot/blockSlots].seconds>>(slot%blockSlots)&1 != 0 && s.half(slot)
	}
	for k := range patches {
		t := &patches[k]
		if t.Slot < 0 || t.Slot >= len(p.Insns) {
			return 0, false, &Error{Slot: -1, Reason: fmt.Sprintf("has no slot %d to patch", t.Slot)}
		}
		bad := func(format string, args ...any) (int, bool, error) {
			return 0, false, &Error{Slot: t.Slot, Insn: p.Insns[t.Slot], Reason: "patch: " + fmt.Sprintf(format, args...)}
		}
		if t.Own < Enter || t.Own >= len(t.Insns) && t.Own >= 0 {
			return bad("own instruction %d of %d", t.Own, len(t.Insns))
		}
		if k > 0 {
			if b := &patches[k-1]; b.Slot > t.Slot || b.Slot == t.Slot && (b.rank() > t.rank() || b.rank() == 2) {
				return bad("out of order")
			}
		}
		length += len(t.Insns)
		if t.Own < 0 {
			enters = enters || t.Own == Enter && len(t.Insns) > 0
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
		length--
	}
	return length, enters, nil
}

// replaces reports whether the first of the patches replaces the slot.
func replaces(patches []Patch, slot int) bool {
	return len(patches) > 0 && patches[0].Slot == slot && patches[0].Own >= 0
}
