package jit

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/mixed"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestAhead: it makes no difference how many slots are drafted before their marks
// are laid out. There are jumps to slots that aren't drafted yet, near and far,
// registers that are used at last only, and faults.
func TestAhead(t *testing.T) {
	seed := testprog.Seed(t)
	errors := 0
	for i := range uint64(60) {
		r := testprog.Rand(seed, i)
		insns := mixed.Real().Program(seed+i, 50+r.IntN(1500))
		late := len(insns) - 1 - r.IntN(20)
		for k := range insns {
			in := &insns[k]
			if in.Op == abi.OpCall && in.Src() == abi.CallLocal { // of a function that isn't here
				*in = abi.Insn{Op: abi.OpCall, Imm: 5}
			}
			if k >= late || in.Op == abi.OpLdImm64 || in.Op&abi.ClassMask <= abi.ClassSTX {
				continue
			}
			dst, src := in.Dst(), in.Src()
			if dst >= abi.R6 && dst <= abi.R9 {
				dst -= 5
			}
			if src >= abi.R6 && src <= abi.R9 {
				src -= 5
			}
			in.Regs = abi.Registers(dst, src)
		}
		at := r.IntN(len(insns) - 1)
		switch fault := &insns[at]; {
		case fault.Op == 0 || fault.Op == abi.OpLdImm64:
		case i%4 == 0:
			*fault = abi.Insn{Op: abi.OpGotol, Imm: r.Int32N(3000) - 1500} // perhaps to nowhere
		case i%4 == 1:
			*fault = abi.Insn{Op: 0xff}
		case i%4 == 2:
			*fault = abi.Insn{Op: abi.OpGotol, Imm: int32(len(insns) - 2 - at)}
		}
		type state struct {
			Error              string
			Jumps              []jump
			Sums, Others       []uint32
			Prologue, Epilogue []byte
			Saved              uint8
		}
		run := func(ahead int) (s state) {
			c := &compiler{profile: &Linux618, prog: &bpf.Program{Insns: insns}, fn: &Function{StackDepth: 64}, insns: insns}
			if err := c.draftAll(ahead); err != nil {
				return state{Error: err.Error()}
			}
			return state{"", c.jumps, c.sums, c.others, c.job.frame.prologue, c.job.frame.epilogue, c.saved}
		}
		want := run(len(insns))
		if want.Error != "" {
			errors++
		}
		for _, ahead := range []int{1, 2, 15, 16, 17, 100, 700} {
			if diff := cmp.Diff(want, run(ahead), cmp.AllowUnexported(jump{})); diff != "" {
				t.Fatalf("program %d: all at once, and %d slots at a time, differ (-all +%[2]d):\n%s", i, ahead, diff)
			}
		}
	}
	if errors == 0 || errors > 40 {
		t.Errorf("%d programs are refused", errors)
	}
}

// TestOwnCompiler: a Code keeps its compiler from the second program on that it has,
// not because one was refused.
func TestOwnCompiler(t *testing.T) {
	var code Code
	good := &bpf.Program{Insns: []bpf.Insn{{Op: abi.OpExit}}}
	bad := &bpf.Program{Insns: []bpf.Insn{{Op: abi.OpJa, Off: 5}, {Op: abi.OpExit}}}
	for i, step := range []struct {
		p         *bpf.Program
		fails, ok bool
	}{{bad, true, false}, {good, false, false}, {good, false, true}, {bad, true, true}, {good, false, true}} {
		err := code.Compile(step.p, &Linux618, new(Function))
		if (err != nil) != step.fails || (code.own != nil) != step.ok {
			t.Errorf("step %d: error %v, keeps a compiler: %v", i, err, code.own != nil)
		}
	}
}

// TestFewPasses: passes get a room of their own where a Func has less of it than is
// written at once.
func TestFewPasses(t *testing.T) {
	list := [16]int{3: 7, 15: 7}
	// There is room enough for the bytes.
	code := Code{Bytes: make([]byte, 0, 1000), Funcs: []Func{{Passes: list[:0:3]}}}
	if err := code.Compile(&bpf.Program{Insns: []bpf.Insn{{Op: abi.OpExit}}}, &Linux618, new(Function)); err != nil {
		t.Fatal(err)
	}
	if want := [16]int{3: 7, 15: 7}; list != want || len(code.Funcs[0].Passes) == 0 {
		t.Errorf("passes %v, and behind the room for them %v", code.Funcs[0].Passes, list)
	}
}
