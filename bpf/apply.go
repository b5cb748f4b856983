package bpf

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
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
	patcher patcher
	moved   MovedFuncs
}

// Apply sets r to p with all changes, see the function Apply. It uses the
// memory that r has again, so p must not be r's Program. That may share p's Origin:
// p must stay as it is as long as Program is in use. With an error nothing in r is
// of use.
func (r *Patched) Apply(p *Program, patches []Patch) error {
	s := surveyOf(p)
	defer s.release()
	err := r.ApplySurveyed(s, patches)
	r.patcher.patches = nil // others'
	return err
}

// ApplySurveyed does it for the program that was surveyed.
func (r *Patched) ApplySurveyed(s *Survey, patches []Patch) error {
	s.Program()
	r.patcher.charges = noCharges
	return r.apply(s, patches)
}

// ApplyCharged does the same and charges: at each charge point of the program, see
// AppendCharges, goes a CHARGE in front of the instruction, as if there were a patch
// with Before, the first of them.
func (r *Patched) ApplyCharged(s *Survey, patches []Patch) error {
	r.patcher.charges = s.charge()
	return r.apply(s, patches)
}

// apply does both. Behind the charges is that of noCharges.
func (r *Patched) apply(s *Survey, patches []Patch) error {
	p := s.program
	if p == &r.Program {
		panic("BUG: a program is patched in its own memory")
	}
	if err := p.CheckSizes(); err != nil {
		return err
	}
	if p.Index != nil {
		p = p.Flat()
	}
	m, np := &r.patcher, &r.Program
	m.old, m.patches = p, patches
	if err := m.run(s); err != nil {
		return err
	}
	r.Index = m.index[:s.slots+1]
	np.Insns, np.Flags, np.Origin, np.Index = m.moved[:m.at], m.flags[:m.at], p.Origin, r.Index
	switch {
	case len(m.enter) > 0: // index says nothing about what is in front of it
		np.Origin, np.Index = m.origin, nil
	case m.at == s.slots && len(patches) == 0:
		np.Index = nil
		if p.Flags == nil {
			np.Flags = nil
		}
	}
	return nil
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

// replaces reports whether p replaces a slot.
func (p *Patch) replaces(slot int) bool { return p.Own >= 0 && p.Slot == slot }

// checkPatch refuses what Apply's comment forbids, of patches of which all in front of
// one are right.
func (p *patcher) checkPatch(k int) error {
	insns, t := p.old.Insns, &p.patches[k]
	if t.Slot < 0 || t.Slot >= len(insns) {
		return &Error{Slot: -1, Reason: fmt.Sprintf("has no slot %d to patch", t.Slot)}
	}
	if t.Own < Enter || t.Own >= len(t.Insns) && t.Own >= 0 {
		return p.refuse(t.Slot, "own instruction %d of %d", t.Own, len(t.Insns))
	}
	before := new(Patch)
	if k > 0 {
		before = &p.patches[k-1]
		if before.Slot > t.Slot || before.Slot == t.Slot && (before.rank() > t.rank() || before.rank() == 2) {
			return p.refuse(t.Slot, "out of order")
		}
	}
	if t.Own < 0 {
		if p.second(t.Slot) {
			return p.refuse(t.Slot, between)
		}
		return nil
	}
	if _, ok := Distance(insns[t.Slot]); ok {
		if _, ok := Distance(t.Insns[t.Own]); !ok {
			return p.refuse(t.Slot, "%s has no distance any more", Text(t.Insns[t.Own]))
		}
	}
	// Nothing goes between the halves, so the patches of both are neighbours.
	if p.second(t.Slot) && !(k > 0 && before.replaces(t.Slot-1)) ||
		p.second(t.Slot+1) && !(k+1 < len(p.patches) && p.patches[k+1].replaces(t.Slot+1)) {
		return p.refuse(t.Slot, "replaces one half of a 64-bit constant")
	}
	return nil
}

// between is what a patch is refused for.
const between = "goes between the halves of a 64-bit constant"

// refuse returns the error about a patch of a slot.
func (p *patcher) refuse(slot int, format string, args ...any) error {
	return &Error{Slot: slot, Insn: p.old.Insns[slot], Reason: "patch: " + fmt.Sprintf(format, args...)}
}

// second reports whether a slot is the second half of a constant.
func (p *patcher) second(slot int) bool {
	insns := p.old.Insns
	return 0 < slot && slot < len(insns) && insns[slot].Op == opSecond && insns[slot-1].Op == abi.OpLdImm64
}
