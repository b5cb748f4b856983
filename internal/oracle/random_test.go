package oracle

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/machine"
	"github.com/bpfjit/bpfjit/tables"
)

// EnvPrograms is how many random programs TestRandom takes.
const EnvPrograms = "BPFJIT_PROGRAMS"

// TestRandom compares random programs that the verifier accepts: the bytes of
// each function, every displacement included, and what a run gives, R0 and
// the packet, with both engines.
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
	var accepted, folded, functions, slots, size, maxPasses int
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
		if p.Folded {
			folded++
		}
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
		compareRun(t, loaded, p)
		loaded.Close()
	}
	t.Logf("%d of %d programs accepted, %d with all registers and the stack in the packet: %d functions, %d slots, %d bytes equal, in %v",
		accepted, n, folded, functions, slots, size, time.Since(start).Round(time.Millisecond))
	for np := 1; np <= maxPasses; np++ {
		if passes[np] > 0 {
			t.Logf("%5d functions took %d passes", passes[np], np)
		}
	}
	for _, d := range []int{-133, -132, -131, -130, -129, -125, -124, -123, -122, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129} {
		t.Logf("%5d jumps over %d bytes", edges[d], d)
	}
	t.Logf("forms of the source programs:\n%s", source.Table(testprog.VerifiedForms()))
	t.Logf("forms of the translated ones:\n%s", translated.Table(testprog.TranslatedForms()))
	if accepted*10 < n*9 {
		t.Errorf("the verifier accepted %d of %d programs only", accepted, n)
	}
	if missing := source.Missing(testprog.VerifiedForms()); n >= 300 && len(missing) > 0 {
		t.Errorf("forms that no program had: %v", missing)
	}
}

// TestRandomBlinded does the same while the kernel blinds constants. Of a
// program with several functions it doesn't show the blinded instructions, so
// these have one.
func TestRandomBlinded(t *testing.T) {
	seed := testprog.Seed(t)
	kernel.WithHarden2(t, func() {
		k, err := kernel.ReadConstants()
		if err != nil {
			t.Fatal(err)
		}
		accepted, dangerous := 0, 0
		for i := range uint64(60) {
			p := testprog.Verified(seed, i, testprog.Limits{Without: testprog.Calls, MaxSize: 1500})
			loaded, err := kernel.Load(&kernel.Spec{Type: kernel.Type(p.Kind), Insns: p.Insns})
			switch {
			case errors.Is(err, kernel.ErrDangerous):
				dangerous++
				continue
			case err != nil:
				t.Logf("%s: %v", p.Name, err)
				continue
			}
			accepted++
			funcs, err := loaded.Functions()
			if err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
			if _, err := Compare(k, funcs); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
			compareRun(t, loaded, p)
			loaded.Close()
		}
		t.Logf("%d programs accepted, %d too dangerous to load", accepted, dangerous)
		if accepted < 40 {
			t.Errorf("only %d programs were accepted", accepted)
		}
	})
}

// compareRun runs a program twice in the kernel and once in each engine, on the
// same packet: R0, of which the kernel tells 32 bits, and the packet, into which
// most programs fold all registers and the stack, must be the same.
func compareRun(t *testing.T, loaded *kernel.Program, p testprog.Program) {
	t.Helper()
	var kernels [2]*kernel.Result
	for i := range kernels {
		var err error
		if kernels[i], err = loaded.Run(kernel.RunOptions{Data: p.Packet}); err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
	}
	engines := []bpfjit.Engine{bpfjit.EngineInterpreter}
	if machine.Available() == nil {
		engines = append(engines, bpfjit.EngineJIT)
	}
	for _, engine := range engines {
		r0, packet, err := runHere(&p, engine)
		if err != nil {
			t.Errorf("%s: %v: %v", p.Name, engine, err)
			continue
		}
		for _, want := range kernels {
			if uint32(r0) != want.Return {
				t.Errorf("%s: %v: R0 is %#x, the kernel has %#x", p.Name, engine, uint32(r0), want.Return)
			}
			// A socket filter has no access to the packet; what comes back for
			// it lacks the link header.
			if p.Kind != testprog.SocketFilter && !bytes.Equal(packet, want.Data) {
				t.Errorf("%s: %v: the packet differs:\n%x, the kernel has\n%x", p.Name, engine, packet, want.Data)
			}
		}
		if p.Folded && bytes.Equal(packet, p.Packet) {
			t.Errorf("%s: the packet is as it was", p.Name)
		}
	}
}

// runHere runs a program in an engine of ours.
func runHere(p *testprog.Program, engine bpfjit.Engine) (r0 uint64, packet []byte, err error) {
	types := map[testprog.Kind]ebpf.ProgramType{
		testprog.XDP: ebpf.XDP, testprog.SchedCLS: ebpf.SchedCLS, testprog.SocketFilter: ebpf.SocketFilter,
	}
	prog, err := bpfjit.CompileBytes(bpf.Encode(p.Insns), &bpfjit.Options{Engine: engine, Type: types[p.Kind], Budget: -1})
	if err != nil {
		return 0, nil, err
	}
	defer prog.Close()
	return prog.RunPacket(p.Packet)
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
