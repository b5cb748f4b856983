package bpf_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// partLengths are lengths of programs about those at which something changes in how they
// are looked at: all short ones, and those about a part, and about what following jumps
// stays behind.
func partLengths() (list []int) {
	for n := 1; n <= 200; n++ {
		list = append(list, n)
	}
	return append(list, 4095, 4096, 4097, 4130, 9*4096-1, 9*4096, 9*4096+1, 10*4096+33)
}

// positions are slots of a program: all of a short one, else those at its ends, and about
// the ends of parts.
func positions(n int) (list []int) {
	for i := range n {
		if n <= 200 || i < 2 || i >= n-34 || (i+1)%4096 < 2 {
			list = append(list, i)
		}
	}
	return list
}

// straightProgram is a program of n slots that Check accepts.
func straightProgram(n int) *bpf.Program {
	p := &bpf.Program{Insns: slices.Repeat([]bpf.Insn{{Op: 0xb7, Regs: 1, Imm: 7}}, n)}
	p.Insns[n-1] = bpf.Insn{Op: abi.OpExit}
	return p
}

// TestPartsSuspects has a slot at fault anywhere: both halves of Check see it.
func TestPartsSuspects(t *testing.T) {
	for _, n := range partLengths() {
		p := straightProgram(n)
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Fatalf("%d slots: %v", n, err)
		}
		for _, slot := range positions(n) {
			was := p.Insns[slot]
			for _, in := range []bpf.Insn{{Op: 0xb7, Regs: 12}, {Op: 0xff}, {}, {Op: 0xb7, Off: 2}} {
				p.Insns[slot] = in
				var e *bpf.Error
				if err := bpf.Check(p, bpf.Source); !errors.As(err, &e) || e.Slot != slot {
					t.Fatalf("%d slots, %v in slot %d: %v", n, in, slot, err)
				}
			}
			// Suspect, but in order: an atomic addition that returns what was there.
			p.Insns[slot] = bpf.Insn{Op: 0xdb, Regs: 1, Off: 8, Imm: 1}
			if want := slot < n-1; bpf.Quick(p, bpf.Source) != want || (bpf.Check(p, bpf.Source) == nil) != want {
				t.Fatalf("%d slots, an atomic in slot %d: passes is not %v", n, slot, want)
			}
			p.Insns[slot] = was
		}
	}
}

// TestPartsJumps leads a jump from anywhere to both ends, and out of them, and to the halves
// of a constant.
func TestPartsJumps(t *testing.T) {
	jeq := tables.Forms[tables.FormJmpJeqK].Op
	for _, n := range partLengths() {
		if n < 5 {
			continue
		}
		p := straightProgram(n)
		for _, first := range []int{0, n / 2, n - 3} { // of a constant
			was := slices.Clone(p.Insns[first : first+2])
			p.Insns[first], p.Insns[first+1] = bpf.Insn{Op: abi.OpLdImm64, Regs: 1}, bpf.Insn{}
			for _, slot := range positions(n - 1) {
				if slot == first || slot == first+1 {
					continue
				}
				was := p.Insns[slot]
				for _, to := range []int{-1, 0, 1, first, first + 1, n - 2, n - 1, n, n + 1} {
					d := to - slot - 1
					if d != int(int16(d)) {
						continue
					}
					p.Insns[slot] = bpf.Insn{Op: jeq, Regs: 1, Off: int16(d)}
					want := to >= 0 && to < n && to != first+1
					if bpf.Quick(p, bpf.Source) != want {
						t.Fatalf("%d slots, constant at %d: slot %d may lead to %d: not %v", n, first, slot, to, want)
					}
				}
				p.Insns[slot] = was
			}
			copy(p.Insns[first:], was)
		}
	}
}

// TestPartsOthers surveys a program with nothing but others, then one with none in the
// same memory.
func TestPartsOthers(t *testing.T) {
	var s bpf.Survey
	for _, n := range append(partLengths(), 3, 100_000, 5) {
		p := straightProgram(n)
		for i := range n - 1 {
			p.Insns[i] = bpf.Insn{Op: 0x37, Regs: 1, Imm: 7} // r1 /= 7
		}
		if err := s.Check(p, bpf.Source); err != nil {
			t.Fatalf("%d slots: %v", n, err)
		}
		others := s.Others()
		if len(others) != n-1 {
			t.Fatalf("%d slots: %d others", n, len(others))
		}
		for i, o := range others {
			if int(o.Slot) != i || o.Insn != p.Insns[i] {
				t.Fatalf("%d slots: other %d is %v", n, i, o)
			}
		}
		if n > 1 && s.Kinds() != bpf.Divisions {
			t.Fatalf("%d slots: kinds %v", n, s.Kinds())
		}
		if err := s.Check(straightProgram(n), bpf.Source); err != nil || len(s.Others()) != 0 || s.Kinds() != 0 {
			t.Fatalf("%d slots: %d others of kinds %v, %v", n, len(s.Others()), s.Kinds(), err)
		}
	}
}
