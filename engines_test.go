package bpfjit_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/machine"
	"github.com/bpfjit/bpfjit/tables"
)

// outcome is everything that a run leaves.
type outcome struct {
	R0   uint64
	Mem  []byte
	Used int64
	Stop string // how it ended
	Slot int
	Addr int64
}

// differ compiles a program for an engine and runs it in an environment that
// is the same each time.
func outcomeOf(prog *testprog.Program, engine bpfjit.Engine, blinding bool, budget int64) (outcome, error) {
	var now uint64
	random := uint32(1)
	refused := func(err error) outcome { return outcome{Stop: "refused: " + err.Error()} }
	p, err := bpfjit.CompileBytes(bpf.Encode(prog.Insns), &bpfjit.Options{
		Name:     prog.Name,
		Engine:   engine,
		Blinding: blinding,
		Budget:   budget,
		Clock:    func() uint64 { now++; return now },
		Random:   func() uint32 { random = random*1664525 + 1013904223; return random },
	})
	var ce *bpfjit.CompileError
	if errors.As(err, &ce) {
		return refused(err), nil
	}
	if err != nil {
		return outcome{}, err
	}
	defer p.Close()
	in, err := p.NewInstance()
	if err != nil {
		return outcome{}, err
	}
	defer in.Close()
	out := outcome{Mem: slices.Clone(prog.Packet), Slot: -1}
	out.R0, err = in.Run(out.Mem)
	out.Used = in.Used()
	var re *bpfjit.RunError
	switch {
	case err == nil:
		out.Stop = "exit"
		return out, nil
	case !errors.As(err, &re):
		return out, err
	case errors.Is(err, bpfjit.ErrFault):
		out.Stop, out.Addr = "fault", re.Addr
	case errors.Is(err, bpfjit.ErrBudget):
		out.Stop = "budget"
	default:
		out.Stop = re.Err.Error()
	}
	out.Slot = re.Offset
	return out, nil
}

// runs is how many random programs a test makes: BPFJIT_PROGRAMS, or few.
func runs(t *testing.T, few int) int {
	s := os.Getenv("BPFJIT_PROGRAMS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEnginesAgree runs random programs, wild pointers and endless loops among
// them, in the interpreter and as machine code: R0, memory, the way a run
// ends, where, at which address, and the budget used must be the same.
func TestEnginesAgree(t *testing.T) {
	if err := machine.Available(); err != nil {
		t.Skipf("no machine code here: %v", err)
	}
	const budget = 1 << 14
	seed := testprog.Seed(t)
	n := runs(t, 3000)
	stops := map[string]int{}
	reached := map[string]int{}
	var used []int64
	bad := 0
	for i := range uint64(n) {
		prog := testprog.Wild(seed, i, testprog.Limits{})
		want, err := outcomeOf(&prog, bpfjit.EngineInterpreter, false, budget)
		if err != nil {
			t.Fatalf("%s: interpreter: %v", prog.Name, err)
		}
		got, err := outcomeOf(&prog, bpfjit.EngineJIT, false, budget)
		if err != nil {
			t.Fatalf("%s: machine code: %v", prog.Name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: machine code differs (-interpreter +machine code):\n%s", prog.Name, diff)
			if bad++; bad == 5 {
				t.Fatal("too many differences")
			}
		}
		stop, _, _ := strings.Cut(want.Stop, ":")
		if strings.Contains(stop, "helper") {
			stop = "helper"
		}
		stops[stop]++
		used = append(used, want.Used)
		for _, in := range prog.Insns {
			if f, ok := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm); ok {
				reached[f.String()]++
			}
		}
	}
	slices.Sort(used)
	t.Logf("%d programs, %d differ; ended by %v: %.1f %% normally; budget used: median %d, 90th percentile %d",
		n, bad, stops, 100*float64(stops["exit"])/float64(n), used[len(used)/2], used[len(used)*9/10])
	logForms(t, reached)
	if stops["exit"]*10 < n*4 {
		t.Errorf("%d of %d programs end normally, want 40 %%", stops["exit"], n)
	}
}

// logForms shows how often each form of the Source dialect occurs; none may be
// missing.
func logForms(t *testing.T, reached map[string]int) {
	var lines, missing []string
	for f := tables.Form(1); f < tables.NumForms; f++ {
		info := &tables.Forms[f]
		if info.Source != tables.Allowed {
			continue
		}
		if reached[info.Name] == 0 {
			missing = append(missing, info.Name)
		}
		lines = append(lines, fmt.Sprintf("%-20s %8d", info.Name, reached[info.Name]))
	}
	t.Logf("%d forms:\n%s", len(lines), strings.Join(lines, "\n"))
	if len(missing) > 0 {
		t.Errorf("forms that never occur: %v", missing)
	}
}
