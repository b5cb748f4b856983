package bpfjit_test

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/interp"
	"github.com/bpfjit/bpfjit/machine"
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

// outcomeOf compiles a program for an engine and runs it in an environment that
// is the same each time.
func outcomeOf(prog *testprog.Program, engine bpfjit.Engine, blinding bool, budget int64) (outcome, error) {
	clock, random := newSources()
	refused := func(err error) outcome { return outcome{Stop: "refused: " + err.Error()} }
	p, err := bpfjit.CompileBytes(bpf.Encode(prog.Insns), &bpfjit.Options{
		Name:     prog.Name,
		Engine:   engine,
		Blinding: blinding,
		Budget:   budget,
		Clock:    clock,
		Random:   random,
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
	count := newCounter(t)
	stops := map[string]int{}
	var reached testprog.Coverage
	var executed []int
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
		if stop != "refused" {
			executed = append(executed, count.executed(&prog, budget, &want))
		}
		reached.Add(prog.Insns)
	}
	slices.Sort(executed)
	t.Logf("%d programs, %d differ; ended by %v: %.1f %% normally; instructions executed: median %d, 90th percentile %d",
		n, bad, stops, 100*float64(stops["exit"])/float64(n), executed[len(executed)/2], executed[len(executed)*9/10])
	t.Logf("forms of the programs:\n%s", reached.Table(testprog.SourceForms()))
	if stops["exit"]*10 < n*4 {
		t.Errorf("%d of %d programs end normally, want 40 %%", stops["exit"], n)
	}
	if missing := reached.Missing(testprog.SourceForms()); n >= 3000 && len(missing) > 0 {
		t.Errorf("forms that no program had: %v", missing)
	}
}

// counter counts the instructions that programs execute.
type counter struct {
	t    *testing.T
	inst *cage.Instance
}

func newCounter(t *testing.T) *counter {
	inst, err := new(cage.Space).NewInstance(cage.Plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inst.Close() })
	return &counter{t, inst}
}

// executed does the run that outcomeOf did once more, and counts.
func (c *counter) executed(prog *testprog.Program, budget int64, want *outcome) (n int) {
	p, err := interp.Prepare(&bpf.Program{Insns: prog.Insns})
	if err != nil {
		c.t.Fatal(err)
	}
	defer c.inst.Reset(cage.WritesAll)
	if err := c.inst.LoadMem(prog.Packet); err != nil {
		c.t.Fatal(err)
	}
	clock, random := newSources()
	r := p.Traced(func(int) { n++ }).Run(c.inst, &interp.Config{
		R1: abi.MemBase, R2: uint64(len(prog.Packet)), Budget: budget,
		Helper: helpers.Standard().Lookup, Env: &helpers.Env{Memory: c.inst, Clock: clock, Rand: random},
	})
	if r.R0 != want.R0 || r.Used != want.Used || r.Slot != want.Slot || int64(n) > r.Used {
		c.t.Errorf("%s: %d instructions and %+v when counted, want %+v", prog.Name, n, r, want)
	}
	return n
}

// newSources returns a clock and random numbers that are the same each time.
func newSources() (clock func() uint64, random func() uint32) {
	now, next := uint64(0), uint32(1)
	return func() uint64 { now++; return now },
		func() uint32 { next = next*1664525 + 1013904223; return next }
}
