//go:build amd64 && !purego

package bpf

//go:generate go run -C=../gen ./asm/bpf -out ../bpf/bpf_amd64.s

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// assembly tells whether the processor has what the assembly is made of.
var assembly = supported()

// supported asks for vectors of 32 bytes, BLSR, SHLX and LZCNT. Every processor since
// 2013 has them, but for some small ones.
func supported() bool {
	return cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasLZCNT
}

// These do what Go does where there is no assembly: part of a survey, walkBlock, place
// and mendJumps of a patcher, addGeneric of a mender. All but the first do so as long as
// nothing is rare; tests compare them. gen/asm/bpf writes them.

//go:noescape
func surveyAVO(s *Survey, p *places, r *refusal)

//go:noescape
func chargeAVO(s *Survey, flows *flow)

//go:noescape
func placeAVO(p *patcher, s *Survey, unusual *uint8)

//go:noescape
func mendAVO(p *patcher, s *Survey, jumps *uint64)

//go:noescape
func mendSlotsAVO(insns, np *Insn, index, late *int32, reaches *reach, jumps *uint64, words, first, known, length int) (lates int, ok bool)

// assembled does what part does, if there is assembly. There is room for the others of the
// part.
func (s *Survey) assembled(r *refusal) bool {
	if !assembly {
		return false
	}
	surveyAVO(s, &surveyed, r)
	return true
}

// walk walks from slot at of the charger to stop, or leaves it to walkBlock. Where it
// begins at the end of the program it begins that, too.
func (s *Survey) walk() {
	if assembly {
		chargeAVO(s, &flows[0])
	}
}

// placeUsual moves slots and places patches until one is unusual, or all in front of
// next.
func (p *patcher) placeUsual(s *Survey) {
	if assembly && p.old.Flags == nil {
		placeAVO(p, s, &unusual[0])
	}
}

// mendEasy mends blocks until something is rare in one, or all in front of stop. The
// word of the first block says which of their words has the jumps.
func (p *patcher) mendEasy(s *Survey, jumps *uint64) {
	if assembly {
		mendAVO(p, s, jumps)
	}
}

// mendPart is how many words of jumps the assembly takes at a time: it can't be
// interrupted.
const mendPart = 64

func (m *Mender) add(np []Insn, index []int32, first int, jumps []uint64) error {
	insns := m.old.Insns
	known := min(len(index)-1, len(insns))
	switch {
	case !assembly || known <= 0 || len(np) == 0 || first < 0 || len(jumps) == 0:
		return m.addGeneric(np, index, first, jumps)
	case len(jumps) > mendPart:
		return m.addParts(np, index, first, jumps)
	case blockSlots*len(jumps) > cap(m.late)-len(m.late):
		m.makeRoom(blockSlots * len(jumps))
	}
	late := m.late[len(m.late):cap(m.late)]
	lates, ok := mendSlotsAVO(&insns[0], &np[0], &index[0], &late[0], &reaches[0], &jumps[0], len(jumps), first, known, len(np))
	m.late = m.late[:len(m.late)+lates]
	if !ok {
		return m.addGeneric(np, index, first, jumps)
	}
	return nil
}

// addParts does it in parts.
func (m *Mender) addParts(np []Insn, index []int32, first int, jumps []uint64) error {
	for len(jumps) > 0 {
		n := min(len(jumps), mendPart)
		if err := m.add(np, index, first, jumps[:n]); err != nil {
			return err
		}
		first, jumps = first+blockSlots*n, jumps[n:]
	}
	return nil
}

// makeRoom makes room for so many more late slots.
func (m *Mender) makeRoom(n int) {
	m.late = slices.Grow(m.late, n)
}
