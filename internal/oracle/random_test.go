package oracle

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/tables"
)

// EnvPrograms is how many random programs TestRandom takes.
const EnvPrograms = "BPFJIT_PROGRAMS"

// TestRandom compares random programs that the verifier accepts: the bytes of
// each function, every displacement included. Two runs on the same packet must
// agree, or comparing results with another engine would mean nothing.
//
// BPFJIT_PROGRAMS sets the number, BPFJIT_SEED replays.
func TestRandom(t *testing.T) {
	kernel.Require(t)
	k, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	n := 300
	if s := os.Getenv(EnvPrograms); s != "" {
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		n = min(n, 50)
	}
	seed := testprog.Seed(t)
	var source, translated testprog.Coverage
	var accepted, functions, slots, size, maxPasses int
	passes, edges := map[int]int{}, map[int]int{}
	start := time.Now()
	for i := range uint64(n) {
		p := testprog.Verified(seed, i, testprog.Limits{})
		if err := bpf.Check(&bpf.Program{Insns: p.Insns}, bpf.Source); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		loaded, err := kernel.Load(&kernel.Spec{Type: kernel.Type(p.Kind), Insns: p.Insns})
		if err != nil {
			var le *kernel.LoadError
			if !errors.As(err, &le) || le.ByJIT() {
				t.Errorf("%s: %+v", p.Name, err)
			}
			t.Logf("%s: %v", p.Name, err)
			continue
		}
		accepted++
		slots += len(p.Insns)
		source.Add(p.Insns)
		funcs, err := loaded.Functions()
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		functions += len(funcs)
		equal, err := Compare(k, funcs)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		size += equal
		for f := range funcs {
			translated.Add(funcs[f].Insns)
			if code, err := Compile(k, &funcs[f], funcs); err == nil {
				np := len(code.Funcs[0].Passes)
				passes[np]++
				maxPasses = max(maxPasses, np)
				countEdges(edges, funcs[f].Insns, code)
			}
		}
		runTwice(t, loaded, p)
		loaded.Close()
	}
	t.Logf("%d of %d programs accepted: %d functions, %d slots, %d bytes equal, in %v",
		accepted, n, functions, slots, size, time.Since(start).Round(time.Millisecond))
	for np := 1; np <= maxPasses; np++ {
		if passes[np] > 0 {
			t.Logf("%5d functions took %d passes", passes[np], np)
		}
	}
	for _, d := range []int{-136, -135, -134, -133, -132, -131, -130, -129, -128, -127, -126, -125, -124, -123, -122, -121, -120, -119, -118, -117, -116, -115, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129} {
		t.Logf("%5d jumps over %d bytes", edges[d], d)
	}
	t.Logf("forms of the source programs:\n%s", source.Table(testprog.VerifiedForms()))
	t.Logf("forms of the translated ones:\n%s", translated.Table(nil))
	if accepted*10 < n*9 {
		t.Errorf("the verifier accepted %d of %d programs only", accepted, n)
	}
	if missing := source.Missing(testprog.VerifiedForms()); n >= 300 && len(missing) > 0 {
		t.Errorf("forms that no program had: %v", missing)
	}
}

// runTwice runs a program twice and compares the results.
func runTwice(t *testing.T, loaded *kernel.Program, p testprog.Program) {
	t.Helper()
	var first *kernel.Result
	for range 2 {
		got, err := loaded.Run(kernel.RunOptions{Data: p.Packet})
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if first == nil {
			first = got
		} else if got.Return != first.Return || !bytes.Equal(got.Data, first.Data) {
			t.Errorf("%s: two runs, two results: %#x and %#x", p.Name, first.Return, got.Return)
		}
	}
	if p.Folded && len(first.Data) == len(p.Packet) && slices.Equal(first.Data, p.Packet) {
		t.Errorf("%s: the packet is as it was", p.Name)
	}
}

// countEdges counts the displacements of a function's jumps, in bytes.
func countEdges(edges map[int]int, insns []bpf.Insn, code *jit.Code) {
	for slot, in := range insns {
		f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
		distance := int(in.Off)
		switch info := &tables.Forms[f]; {
		case info.Flow != tables.FlowBranch && info.Flow != tables.FlowJump:
			continue
		case info.Imm.Use == tables.UseDistance:
			distance = int(in.Imm)
		}
		if to := slot + distance; to >= 0 {
			edges[int(code.Ends[to])-int(code.Ends[slot])]++
		}
	}
}
