package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/internal/stages"
)

const (
	// minRounds is how often each stage is timed at least.
	minRounds = 5
	// coldSlots: programs of each size that have about so many slots together
	// are in no cache when they come round again, nor do branch predictors
	// know them.
	coldSlots = 1_000_000
)

// BenchmarkStage times every stage of compiling generated programs by itself:
// see package stages. ns/insn of the same stage should be much the same at any
// size; total is the whole way. jumps is what jit needs besides draft and join;
// its passes differ in number, so that it also has ns/insn/pass.
//
//	heat=cold   as many programs as have a million slots together, each once a
//	            round, so that sizes differ in nothing but the size
//	heat=hot    the same program again and again, from 10,000 slots on fewer
//	            times: branch predictors learn a short one by heart
//
// ns/insn is that of the least disturbed round.
func BenchmarkStage(b *testing.B) {
	for _, n := range sizes {
		if n < 100 {
			continue
		}
		for _, o := range []stages.Options{{}, {Blind: true}, {Cage: true}, {Cage: true, Blind: true}} {
			b.Run(fmt.Sprintf("%s/insns=%d", way(o), n), func(b *testing.B) {
				b.Run("heat=cold", func(b *testing.B) { stage(b, o, n, max(1, coldSlots/n), 1) })
				b.Run("heat=hot", func(b *testing.B) { stage(b, o, n, 1, max(1, hotSlots/n)) })
			})
		}
	}
}

// stage times the stages of programs of n slots, each stage of all programs a
// number of times before the next stage: their times are subtracted.
func stage(b *testing.B, o stages.Options, n, programs, times int) {
	c := &stages.Compiler{Options: o}
	var work [stages.NumStages][]func() error
	passes := 0 // over slots
	for _, program := range newSet(b, o, corpus.Generated(programs+4, n)[4:]).programs {
		of, err := c.Stages(program.slots)
		if err != nil {
			b.Fatal(err)
		}
		for _, w := range of {
			work[w.Stage] = append(work[w.Stage], w.Run)
		}
		most := 0
		for _, f := range c.Code().Funcs {
			most = max(most, len(f.Passes))
		}
		passes += n * most
	}
	var least stages.Times
	round := func() {
		for s, runs := range work {
			if len(runs) == 0 {
				continue
			}
			began := time.Now()
			for _, run := range runs {
				for range times {
					if err := run(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if d := time.Since(began); least[s] == 0 || d < least[s] {
				least[s] = d
			}
		}
	}
	rounds := 0
	for ; b.Loop(); rounds++ {
		round()
	}
	for ; rounds < minRounds; rounds++ {
		round()
	}
	slots := float64(n * len(work[stages.Total]) * times)
	if least[stages.Draft] != 0 {
		jumps := least[stages.JIT] - least[stages.Draft] - least[stages.Join]
		least[stages.Jumps] = jumps
		b.ReportMetric(float64(jumps)/float64(passes*times), "jumps-ns/insn/pass")
	}
	for s, d := range least {
		if d != 0 {
			b.ReportMetric(float64(d)/slots, stages.Stage(s).String()+"-ns/insn")
		}
	}
	b.ReportMetric(float64(passes*times)/slots, "passes")
	b.ReportMetric(0, "ns/op")
}
