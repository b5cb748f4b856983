package jit

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestDense: passes over the dense marks and passes over all of them leave the
// same, lengths and errors too.
func TestDense(t *testing.T) {
	type state struct {
		Error  string
		Passes []int
		Sums   []uint32
	}
	refused, padded := 0, 0
	check := func(name string, p *bpf.Program, profile *Profile) {
		t.Helper()
		c := &compiler{profile: profile, prog: p, fn: new(Function), insns: p.Insns}
		c.notePasses(new(Func))
		if err := c.draftAll(ahead); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first := slices.Clone(c.sums) // of pass 0
		run := func(condensed int) (s state) {
			copy(c.sums, first)
			if err := c.converge(condensed); err != nil {
				s.Error = err.Error()
			}
			s.Passes, s.Sums = slices.Clone(c.passes), slices.Clone(c.sums)
			return s
		}
		want := run(len(c.jumps) + 1)
		if diff := cmp.Diff(want, run(0)); diff != "" {
			t.Errorf("%s: all marks, and dense ones, differ (-all +dense):\n%s", name, diff)
		}
		if want.Error != "" {
			refused++
		}
		if c.padding > 0 {
			padded++
		}
	}
	profiles := []*Profile{&Linux618, &Linux513}
	for _, padFrom := range []int{0, 1, 2, 3} {
		p := Linux618
		p.PadFrom = padFrom
		profiles = append(profiles, &p)
	}
	for _, profile := range profiles {
		for h := 2; h < 120; h += 7 {
			check("ladder", ladder(h), profile)
		}
		for n := 100; n < 140; n++ {
			check("pair", pair(n), profile)
		}
		check("restless", &bpf.Program{Insns: testprog.Restless()}, profile)
		check("shifting", &bpf.Program{Insns: testprog.Shifting()}, profile)
		for seed := range uint64(20) {
			check("mixed", &bpf.Program{Insns: testprog.Mixed(seed, 3000).Insns}, profile)
		}
	}
	if refused < 10 || padded < 10 {
		t.Errorf("%d programs are refused, %d padded", refused, padded)
	}
}

// TestCondense: passes of long programs leave out marks, those of short ones don't.
func TestCondense(t *testing.T) {
	for _, test := range []struct {
		slots int
		dense bool
	}{{500, false}, {5000, false}, {60_000, true}} {
		c := new(compiler)
		code := &Code{own: c}
		if err := code.Compile(&bpf.Program{Insns: testprog.Mixed(1, test.slots).Insns}, &Linux618, new(Function)); err != nil {
			t.Fatal(err)
		}
		marks, dense := len(c.jumps), len(c.dense.marks)
		if test.dense != (dense > 0) || dense > marks*2/3 {
			t.Errorf("%d slots: passes visit %d of %d marks", test.slots, dense, marks)
		}
	}
}
