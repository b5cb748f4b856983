package jit

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// An implementation of the passes, in assembly or in Go.
type implementation struct {
	name                   string
	layOut, pass, lastPass func(*compiler)
	passes                 func(*compiler) bool
}

// state is what an implementation leaves.
type state struct {
	Error   string
	Jumps   []jump
	Others  []uint32
	Charges []charge
	Sums    [][]uint32 // after pass 0, 1, ...
	Gaps    []encoder.Gap

	// Of all passes in one call, five at most.
	Lengths    []int
	Settled    bool
	EarlySums  []uint32
	EarlyJumps []encoder.Gap
}

// writtenGaps returns the gaps. Behind its length a gap has no meaning.
func (c *compiler) writtenGaps() (gaps []encoder.Gap) {
	for _, g := range c.gaps {
		if n := g.Len(); n < 6 {
			g = encoder.MakeGap(uint64(g)&(1<<(8*n)-1), n)
		}
		if g.Len() > 0 {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// run goes through the passes of a program until nothing changes.
func (im implementation) run(t *testing.T, p *bpf.Program, profile *Profile, fn *Function) (s state) {
	t.Helper()
	c := &compiler{profile: profile, prog: p, fn: fn, insns: p.Insns, cage: profile == &Cage}
	if !c.draft.Write(profile.Rows, p.Insns, false) {
		t.Fatalf("%s: no draft", im.name)
	}
	c.notePasses(new(Func))
	c.begin()
	c.drafted()
	for {
		im.layOut(c)
		if c.job.next == c.job.count {
			break
		}
		if err := c.layOutOther(); err != nil {
			return state{Error: err.Error()}
		}
	}
	if err := c.laidOut(); err != nil {
		return state{Error: err.Error()}
	}
	s.Jumps, s.Others = append(s.Jumps, c.jumps...), append(s.Others, c.others...)
	s.Charges = append(s.Charges, c.charges...)
	if len(c.jumps) < shortMarks {
		sums := append([]uint32(nil), c.sums...)
		c.job.most = 4
		if s.Settled = im.passes(c); s.Settled {
			s.EarlyJumps = c.writtenGaps()
		}
		s.Lengths = append(s.Lengths, c.passes[:1+c.job.rounds]...)
		s.EarlySums = append(s.EarlySums, c.sums...)
		copy(c.sums, sums)
	}
	for pass := 0; ; pass++ {
		before := append([]uint32(nil), c.sums...)
		s.Sums = append(s.Sums, before)
		if im.pass(c); cmp.Equal(before, c.sums) || pass > 40 {
			break
		}
	}
	// It stops where a jump isn't as long as it was: change some lengths.
	for k := 7; k < len(c.jumps); k += 11 {
		for i := range c.sums[k+1:] {
			c.sums[k+1+i] += uint32(k % 3)
		}
	}
	for c.job.next = 0; ; c.job.next++ {
		im.lastPass(c)
		if c.job.next == len(c.jumps) {
			break
		}
		c.gaps[c.job.next] = encoder.MakeGap(1, 1)
	}
	s.Gaps = c.writtenGaps()
	return s
}

// charged returns a program with a CHARGE for every third constant that is added.
func charged(insns []abi.Insn) *bpf.Program {
	p := &bpf.Program{Insns: append([]abi.Insn(nil), insns...)}
	for i := range p.Insns {
		if in := &p.Insns[i]; in.Op == 0x07 && i%3 == 0 {
			*in = abi.Insn{Op: abi.OpCharge, Imm: in.Imm}
		}
	}
	return p
}

// TestImplementations compares the implementations of the passes: programs
// with jumps of all lengths, far and near, ahead, back and to themselves, some
// to nowhere, calls, and in the cage CHARGEs.
func TestImplementations(t *testing.T) {
	seed := testprog.Seed(t)
	programs, refused := 0, 0
	equal := cmp.AllowUnexported(jump{}, charge{})
	check := func(insns []abi.Insn, fn *Function) {
		t.Helper()
		p := &bpf.Program{Insns: insns}
		for _, profile := range []*Profile{&Linux618, &Linux513, &Cage} {
			if profile == &Cage {
				p = charged(insns)
			}
			first := implementations[0].run(t, p, profile, fn)
			for _, im := range implementations[1:] {
				if diff := cmp.Diff(first, im.run(t, p, profile, fn), equal); diff != "" {
					t.Fatalf("%s and %s differ (-%[1]s +%[2]s):\n%s", implementations[0].name, im.name, diff)
				}
			}
			programs++
			if first.Error != "" {
				refused++
			}
		}
	}
	check(testprog.Restless(), new(Function))
	check(testprog.Ladder(100), new(Function))
	for i := range uint64(120) {
		r := testprog.Rand(seed, i)
		insns := make([]abi.Insn, 2+r.IntN(600))
		for k := range insns {
			off := int16(r.IntN(len(insns)+1) - k - 1)
			if r.IntN(2) == 0 {
				off = int16(max(-k-1, min(r.IntN(60)-30, len(insns)-k-2)))
			}
			if r.IntN(5000) == 0 {
				off = int16(r.Uint32()) // perhaps to nowhere
			}
			switch r.IntN(12) {
			case 0, 1:
				insns[k] = abi.Insn{Op: 0x1d, Regs: uint8(r.IntN(10)), Off: off} // if == goto
			case 2:
				insns[k] = abi.Insn{Op: abi.OpJa, Off: off}
			case 3:
				insns[k] = abi.Insn{Op: abi.OpCall, Imm: 1 + r.Int32N(100)}
			case 4:
				insns[k] = abi.Insn{Op: abi.OpCall, Regs: 0x10, Imm: r.Int32N(2)}
			case 5:
				insns[k] = abi.Insn{Op: 0x15, Off: off, Imm: int32(r.Uint32())}
			case 6:
				insns[k] = abi.Insn{Op: []uint8{abi.OpExit, 0x07, 0x07, 0x07}[r.IntN(4)]}
			default:
				insns[k] = abi.Insn{Op: 0x07, Regs: uint8(r.IntN(10)), Imm: int32(r.Uint32())} // r += imm
			}
		}
		insns[len(insns)-1] = abi.Insn{Op: abi.OpExit}
		check(insns, &Function{TailCallReachable: i%4 == 0, Subprogram: i%3 == 0, StackDepth: int(i % 64)})
	}
	t.Logf("%d programs, %d refused", programs, refused)
	if programs < 200 || refused == 0 || refused > programs/2 {
		t.Error("too few of one kind")
	}
}
