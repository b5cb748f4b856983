package reemit

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/stages"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
)

// compare compiles a program in both ways.
func compare(t *testing.T, c *Compiler, name string, insns []abi.Insn) (compared bool) {
	t.Helper()
	want, wantErr := jit.Compile(&bpf.Program{Insns: insns}, stages.Kernel, &jit.Function{StackDepth: 512})
	err := c.Compile(insns)
	if errors.Is(wantErr, jit.ErrConvergence) && errors.Is(err, errPasses) || errors.Is(wantErr, bpf.ErrUnsupported) ||
		wantErr != nil && errors.Is(err, errHelper) {
		return false
	}
	if wantErr != nil || err != nil {
		t.Errorf("%s: %v; want %v", name, err, wantErr)
		return false
	}
	if !bytes.Equal(c.Code, want.Bytes) {
		t.Errorf("%s: %d bytes, want %d; or others", name, len(c.Code), len(want.Bytes))
	}
	if passes := len(want.Funcs[0].Passes); c.Passes != passes {
		t.Errorf("%s: %d passes, want %d", name, c.Passes, passes)
	}
	calls := 0
	for _, r := range want.Relocs {
		if r.Kind == jit.RelHelper || r.Kind == jit.RelLocal {
			if calls < len(c.Calls) && c.Calls[calls] != r.Offset {
				t.Errorf("%s: call %d at %#x, want %#x", name, calls, c.Calls[calls], r.Offset)
			}
			calls++
		}
	}
	if calls != len(c.Calls) {
		t.Errorf("%s: %d calls, want %d", name, len(c.Calls), calls)
	}
	return true
}

// TestCorpora: the same bytes in as many passes, for all that is measured.
func TestCorpora(t *testing.T) {
	var all []corpus.Program
	shared, _, err := corpus.Shared()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	all = append(all, shared...)
	kernels, err := corpus.Kernels()
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, kernels...)
	for _, n := range []int{2, 20, 1000, 100_000} {
		all = append(all, corpus.Generated(3, n)...)
	}
	var c Compiler
	for _, p := range all {
		compare(t, &c, p.Name, p.Insns)
		hidden, err := blind.Rewrite(&bpf.Program{Insns: p.Insns}, nil)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		compare(t, &c, p.Name+", blinded", hidden.Insns)
	}
}

// TestRandom compares programs with all forms that there are, and such whose
// jumps hardly settle.
func TestRandom(t *testing.T) {
	seed := testprog.Seed(t)
	var c Compiler
	compared := 0
	for i := range uint64(2000) {
		p := testprog.Wild(seed, i, testprog.Limits{Without: testprog.MayGotos | testprog.Calls})
		var insns []abi.Insn
		for _, in := range p.Insns {
			if in.Op == abi.OpMayGoto || in.Op == 0x8d {
				in = abi.Insn{Op: abi.OpCall, Imm: 5}
			}
			insns = append(insns, in)
		}
		if bpf.Check(&bpf.Program{Insns: insns}, bpf.Translated) != nil {
			continue
		}
		if compare(t, &c, p.Name, insns) {
			compared++
		}
	}
	if compared < 1000 {
		t.Errorf("only %d programs compared", compared)
	}
	for h := 2; h < 40; h++ {
		compare(t, &c, "ladder", testprog.Ladder(h))
	}
	compare(t, &c, "shifting", testprog.Shifting())
	compare(t, &c, "restless", testprog.Restless())
	if err := c.Compile([]abi.Insn{{Op: 0x20}, {Op: abi.OpExit}}); !errors.Is(err, errInsn) {
		t.Errorf("a packet load: %v", err)
	}
}
