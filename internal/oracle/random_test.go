package oracle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/interp"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/tables"
)

// EnvPrograms is how many random programs TestRandom takes.
const EnvPrograms = "BPFJIT_PROGRAMS"

// TestRandom compares random programs that the verifier accepts: the bytes of
// each function, every displacement included, and what a run gives, R0 and
// the packet, with the interpreter's result.
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
	guest := newGuest(t)
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
		compareRun(t, guest, loaded, p)
		loaded.Close()
	}
	t.Logf("%d of %d programs accepted: %d functions, %d slots, %d bytes equal, in %v",
		accepted, n, functions, slots, size, time.Since(start).Round(time.Millisecond))
	for np := 1; np <= maxPasses; np++ {
		if passes[np] > 0 {
			t.Logf("%5d functions took %d passes", passes[np], np)
		}
	}
	for _, d := range []int{-133, -132, -131, -130, -129, -125, -124, -123, -122, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129} {
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

// TestRandomBlinded does the same while the kernel blinds constants. Of a
// program with several functions it doesn't show the blinded instructions, so
// these have one.
func TestRandomBlinded(t *testing.T) {
	seed := testprog.Seed(t)
	guest := newGuest(t)
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
			compareRun(t, guest, loaded, p)
			loaded.Close()
		}
		t.Logf("%d programs accepted, %d too dangerous to load", accepted, dangerous)
		if accepted < 40 {
			t.Errorf("only %d programs were accepted", accepted)
		}
	})
}

// guest runs programs with the interpreter.
type guest struct {
	inst *cage.Instance
}

func newGuest(t *testing.T) *guest {
	inst, err := new(cage.Space).NewInstance(cage.Plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inst.Close() })
	return &guest{inst}
}

// run gives the program the context that the kernel would give it.
func (g *guest) run(p testprog.Program) (r0 uint64, packet []byte, err error) {
	prog, err := interp.Prepare(&bpf.Program{Insns: p.Insns})
	if err != nil {
		return 0, nil, err
	}
	defer g.inst.Reset(cage.WritesAll)
	if err := g.inst.LoadMem(p.Packet); err != nil {
		return 0, nil, err
	}
	at := 0 // of struct xdp_md: data, data_end
	if p.Kind == testprog.SchedCLS {
		at = 76 // of struct __sk_buff
	}
	ctx := make([]byte, at+8)
	binary.LittleEndian.PutUint32(ctx[at:], abi.MemBase)
	binary.LittleEndian.PutUint32(ctx[at+4:], uint32(abi.MemBase+len(p.Packet)))
	if err := g.inst.LoadCtx(ctx); err != nil {
		return 0, nil, err
	}
	res := prog.Run(g.inst, &interp.Config{R1: abi.CtxBase, Helper: func(uint32) abi.HelperFunc {
		return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 1, nil }
	}})
	return res.R0, bytes.Clone(g.inst.Mem()), res.Cause()
}

// compareRun runs a program twice in the kernel and once in the interpreter,
// on the same packet.
func compareRun(t *testing.T, g *guest, loaded *kernel.Program, p testprog.Program) {
	t.Helper()
	r0, packet, err := g.run(p)
	if err != nil {
		t.Errorf("%s: %v", p.Name, err)
		return
	}
	for range 2 {
		got, err := loaded.Run(kernel.RunOptions{Data: p.Packet})
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if uint32(r0) != got.Return {
			t.Errorf("%s: r0 is %#x, the kernel has %#x", p.Name, uint32(r0), got.Return)
		}
		// A socket filter has no access to the packet; what comes back for
		// it lacks the link header.
		if p.Kind != testprog.SocketFilter && !bytes.Equal(packet, got.Data) {
			t.Errorf("%s: the packet differs:\n%x, the kernel has\n%x", p.Name, packet, got.Data)
		}
	}
	if p.Folded && bytes.Equal(packet, p.Packet) {
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
