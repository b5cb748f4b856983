//go:build amd64 && !purego

package bpf_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestTwins compares charges and patched programs with what the Go twins of the
// assembly make of the same. Some programs have long runs without a jump, which
// the assembly goes over in several steps.
func TestTwins(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	type result struct {
		Charges []bpf.Charge
		Program *bpf.Program
		Index   []int32
		Err     string
		Charged *bpf.Program
	}
	for i := range 2000 {
		p := randomProgram(r, 1+r.IntN(1+i/4))
		if i%100 == 0 {
			for range 1 + r.IntN(3) {
				straight(r, p, 1+r.IntN(20_000))
			}
		}
		patches := fewPatches(r, p)
		if i%3 == 0 {
			patches = randomPatches(r, p)
		}
		run := func() (res result) {
			res.Charges = bpf.AppendCharges(nil, p)
			var err error
			if res.Program, res.Index, err = bpf.Apply(p, patches); err != nil {
				res.Err = err.Error()
			}
			var r bpf.Patched
			if r.ApplyCharged(surveyOf(p), patches) == nil {
				res.Charged = &r.Program
			}
			return res
		}
		var want result
		bpf.Twin(func() { want = run() })
		if got := run(); !reflect.DeepEqual(want, got) {
			t.Fatalf("program %d (-go +assembly):\n%s", i, cmp.Diff(want, got))
		}
	}
}

// straight puts n moves in front of a program, or behind its exit.
func straight(r *rand.Rand, p *bpf.Program, n int) {
	moves := slices.Repeat([]bpf.Insn{{Op: 0xb7, Regs: 1}}, n)
	if r.IntN(2) == 0 {
		p.Insns = slices.Concat(moves, p.Insns)
	} else {
		p.Insns = slices.Concat(p.Insns, moves, []bpf.Insn{{Op: 0x95}})
	}
}

// TestMendTwins has programs mended by the Go twin.
func TestMendTwins(t *testing.T) {
	bpf.Twin(func() {
		t.Run("random", TestMendRandom)
		t.Run("errors", TestMendErrors)
		t.Run("range", TestMendRange)
	})
}

// TestTwinErrors has two jumps that lead too far, of which one is found before the
// other has its target: the error is about the same one.
func TestTwinErrors(t *testing.T) {
	p := &bpf.Program{Insns: slices.Repeat(parse1("r1 = 0"), 40_000)}
	p.Insns[602] = parse1("if r1 == 0 goto +32767")[0]
	p.Insns[16_208] = parse1("goto -16209")[0]
	patches := []bpf.Patch{{Slot: 700, Own: bpf.Before, Insns: slices.Repeat(parse1("r2 = 0"), 20_000)}}
	_, _, got := bpf.Apply(p, patches)
	var want error
	bpf.Twin(func() { _, _, want = bpf.Apply(p, patches) })
	if !errors.Is(got, bpf.ErrRange) || got.Error() != want.Error() {
		t.Errorf("error %v, of the twin %v", got, want)
	}
}
