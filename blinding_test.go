package bpfjit_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
)

// TestBlinding: the author's constants are nowhere in the code, and the
// results are what they were.
func TestBlinding(t *testing.T) {
	needJIT(t)
	const text = `
		r0 = 0x11223344
		r1 = 0x5566778811223344 ll
		if r0 == 0x11223344 goto +1
		exit
		*(u32 *)(r10 - 8) = 0x11223344
		r0 ^= 0x11223344
		r0 += 7
		exit`
	constant := []byte{0x44, 0x33, 0x22, 0x11}
	var codes [][]byte
	for _, blinding := range []bool{false, true, true} {
		p := program(t, bpfjit.EngineJIT, text, func(o *bpfjit.Options) { o.Blinding = blinding })
		if r0, err := p.Run(nil); r0 != 7 || err != nil {
			t.Errorf("blinding %v: r0 %#x, %v", blinding, r0, err)
		}
		if bytes.Contains(p.Code(), constant) == blinding || p.Info().Blinded != blinding {
			t.Errorf("blinding %v: %+v, code %x", blinding, p.Info(), p.Code())
		}
		codes = append(codes, p.Code())
	}
	if bytes.Equal(codes[1], codes[2]) {
		t.Error("two compilations hide constants by the same numbers")
	}
	p := program(t, bpfjit.EngineInterpreter, text, func(o *bpfjit.Options) { o.Blinding = true })
	if r0, err := p.Run(nil); r0 != 7 || err != nil || p.Info().Blinded {
		t.Errorf("interpreter: r0 %#x, %v, %+v", r0, err, p.Info())
	}
}

// TestBlindingAgrees compares blinded code with plain code, and both with the
// interpreter, on random programs.
func TestBlindingAgrees(t *testing.T) {
	needJIT(t)
	seed := testprog.Seed(t)
	n := runs(t, 500)
	bad := 0
	for i := range uint64(n) {
		prog := testprog.Wild(seed, i, testprog.Limits{})
		want, err1 := outcomeOf(&prog, bpfjit.EngineInterpreter, false, 1<<14)
		got, err2 := outcomeOf(&prog, bpfjit.EngineJIT, true, 1<<14)
		plain, err3 := outcomeOf(&prog, bpfjit.EngineJIT, false, 1<<14)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatalf("%s: %v", prog.Name, err)
		}
		if diff := cmp.Diff(want, got) + cmp.Diff(plain, got); diff != "" {
			t.Errorf("%s: blinded code differs (-interpreter or plain code +blinded code):\n%s", prog.Name, diff)
			if bad++; bad == 5 {
				t.Fatal("too many differences")
			}
		}
	}
	t.Logf("%d programs, %d differ", n, bad)
}

// TestFallback: what machine code can't be made of is interpreted, and Info
// says why; EngineJIT refuses it.
func TestFallback(t *testing.T) {
	needJIT(t)
	region, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	limit := region.Stats().Limit
	region.SetLimit(0)
	defer region.SetLimit(limit)

	p := program(t, bpfjit.EngineAuto, "r0 = 5\nexit")
	if info := p.Info(); info.Engine != bpfjit.EngineInterpreter || !errors.Is(info.Reason, image.ErrLimit) || info.Code != 0 {
		t.Errorf("%+v", info)
	}
	if r0, err := p.Run(nil); r0 != 5 || err != nil {
		t.Errorf("r0 %d, %v", r0, err)
	}
	_, err = bpfjit.CompileBytes(assemble(t, "r0 = 5\nexit"), &bpfjit.Options{Engine: bpfjit.EngineJIT})
	var ce *bpfjit.CompileError
	if !errors.As(err, &ce) || ce.Offset != -1 || !errors.Is(err, image.ErrLimit) || !strings.HasPrefix(err.Error(), "program: image: ") {
		t.Errorf("EngineJIT: %v", err)
	}
}

// TestSettling runs programs whose jumps take many passes to settle, or never
// do.
func TestSettling(t *testing.T) {
	needJIT(t)
	programs := map[string][]bpf.Insn{
		"restless": testprog.Restless(),
		"shifting": testprog.Shifting(),
		"caged":    testprog.ShiftingCaged(),
	}
	p, err := bpfjit.CompileBytes(bpf.Encode(programs["caged"]), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if i := p.Info(); i.Engine != bpfjit.EngineInterpreter || !errors.Is(i.Reason, jit.ErrConvergence) {
		t.Errorf("a program that doesn't settle: engine %v, reason %v", i.Engine, i.Reason)
	}
	for _, h := range []int{1, 15, 16, 17, 40} {
		programs[fmt.Sprintf("ladder %d", h)] = testprog.Ladder(h)
	}
	for name, insns := range programs {
		prog := testprog.Program{Name: name, Insns: insns}
		want, err := outcomeOf(&prog, bpfjit.EngineInterpreter, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, blinding := range []bool{false, true} {
			got, err := outcomeOf(&prog, bpfjit.EngineAuto, blinding, 0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, blinding %v (-want +got):\n%s", name, blinding, diff)
			}
		}
	}
}
