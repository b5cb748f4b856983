package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// code is a program as an object has it.
type code struct {
	name  string
	slots []byte
	insns []bpf.Insn
}

// set is programs that are compiled one after the other.
type set struct {
	programs []code
	slots    int // of all
}

// newSet takes the programs that compile the given way; the others are logged.
func newSet(b *testing.B, o stages.Options, programs []corpus.Program) set {
	var s set
	var left []string
	c := stages.Compiler{Options: o}
	for _, p := range programs {
		x := code{p.Name, bpf.Encode(p.Insns), p.Insns}
		if err := c.Compile(x.slots); err != nil {
			left = append(left, fmt.Sprintf("%s: %v", p.Name, err))
			continue
		}
		s.programs = append(s.programs, x)
		s.slots += len(p.Insns)
	}
	if left != nil {
		b.Logf("left out: %s", strings.Join(left, "; "))
	}
	if s.slots == 0 {
		b.Skip("no program is left")
	}
	return s
}

// corpora calls f for each corpus that is here. The shared one is missing from
// most machines; where BPFJIT_REQUIRE_SHARED is 1 that is an error.
func corpora(b *testing.B, f func(b *testing.B, programs []corpus.Program)) {
	for _, c := range []struct {
		name string
		load func() ([]corpus.Program, error)
	}{
		{"shared", func() ([]corpus.Program, error) {
			programs, left, err := corpus.Shared()
			if err == nil {
				b.Logf("left out for LD_ABS or LD_IND: %s", strings.Join(left, ", "))
			}
			return programs, err
		}},
		{"generated", func() ([]corpus.Program, error) { return corpus.Generated(200, 1000), nil }},
		{"kernels", corpus.Kernels},
	} {
		b.Run("corpus="+c.name, func(b *testing.B) {
			programs, err := c.load()
			if errors.Is(err, fs.ErrNotExist) && !(c.name == "shared" && os.Getenv("BPFJIT_REQUIRE_SHARED") == "1") {
				b.Skip(err)
			} else if err != nil {
				b.Fatal(err)
			}
			f(b, programs)
		})
	}
}

// sizes are the lengths of generated programs, in slots.
var sizes = []int{20, 100, 1_000, 10_000, 100_000, 1_000_000}

// generated returns programs of n slots, so many that neither caches nor branch
// predictors know them when they come round again.
func generated(n int) []corpus.Program { return corpus.Generated(max(1, 200_000/n), n) }

// eachWay calls f for both profiles, plain and blinded.
func eachWay(b *testing.B, f func(b *testing.B, o stages.Options)) {
	for _, o := range []stages.Options{{}, {Blind: true}, {Cage: true}, {Cage: true, Blind: true}} {
		b.Run(way(o), func(b *testing.B) { f(b, o) })
	}
}

func way(o stages.Options) string {
	blind, profile := "off", "kernel"
	if o.Blind {
		blind = "on"
	}
	if o.Cage {
		profile = "cage"
	}
	return "blind=" + blind + "/profile=" + profile
}

const (
	// minSweeps is how many sweeps there are at least, whatever -benchtime
	// says; fewSweeps where a sweep is long.
	minSweeps = 20
	fewSweeps = 5
	// hotSlots: a hot program is compiled so often that a sweep goes over
	// about so many slots.
	hotSlots = 20_000
)

// sweeps are the times of sweeps: of going over a set once.
type sweeps struct {
	least, median time.Duration
	allocs        float64 // in a sweep
}

// sweep times the sweeps that fs make, each by itself: the least disturbed one
// is then free of what other programs of the machine did. The sweeps of
// several fs take turns, so that they can be compared. There are as many as
// the benchmark is asked for, and atLeast.
func sweep(b *testing.B, atLeast int, fs ...func() error) []sweeps {
	times := make([][]time.Duration, len(fs))
	run := func() {
		for k, f := range fs {
			began := time.Now()
			err := f()
			d := time.Since(began)
			if err != nil {
				b.Fatal(err)
			}
			times[k] = append(times[k], d)
		}
	}
	run() // memory is made
	clear(times)
	for b.Loop() {
		run()
	}
	for len(times[0]) < atLeast {
		run()
	}
	result := make([]sweeps, len(fs))
	for k, f := range fs {
		s := &result[k]
		s.median = stages.Median(times[k])
		s.least = times[k][0]
		s.allocs = testing.AllocsPerRun(2, func() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		})
	}
	return result
}

// report adds the metrics of a compiler whose sweeps went over slots of
// programs and wrote code, in bytes.
func (s sweeps) report(b *testing.B, programs, slots, code int) {
	b.ReportMetric(float64(s.least)/float64(slots), "ns/insn")
	b.ReportMetric(float64(s.median)/float64(slots), "median-ns/insn")
	b.ReportMetric(float64(code)/float64(slots), "B/insn")
	b.ReportMetric(float64(code)/1e6/s.least.Seconds(), "MB/s")
	b.ReportMetric(s.allocs/float64(programs), "allocs/program")
	b.ReportMetric(0, "ns/op")
}
