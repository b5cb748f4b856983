package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// minRounds is how often each stage is timed at least.
const minRounds = 5

// BenchmarkStage times every stage of compiling a generated program by itself,
// again and again: see package stages. ns/insn of the same stage should be
// much the same at any size; total is the whole way. jumps is what jit needs
// besides draft and join; its passes differ in number, so that it also has
// ns/insn/pass. ns/insn is that of the least disturbed batch.
func BenchmarkStage(b *testing.B) {
	for _, n := range sizes {
		if n < 100 {
			continue
		}
		for _, o := range []stages.Options{{}, {Blind: true}, {Cage: true}, {Cage: true, Blind: true}} {
			c := &stages.Compiler{Options: o}
			program := newSet(b, o, corpus.Generated(5, n)).programs[0]
			work, err := c.Stages(program.slots)
			if err != nil {
				b.Fatal(err)
			}
			passes := 0
			for _, f := range c.Code().Funcs {
				passes = max(passes, len(f.Passes))
			}
			// Batches of the stages take turns: they are subtracted.
			b.Run(fmt.Sprintf("%s/insns=%d", way(o), n), func(b *testing.B) {
				times := max(1, hotSlots/n)
				var least stages.Times
				round := func() {
					for _, w := range work {
						d, err := repeat(w.Run, times)
						if err != nil {
							b.Fatal(err)
						}
						if t := &least[w.Stage]; *t == 0 || d < *t {
							*t = d
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
				per := float64(n * times)
				if least[stages.Draft] != 0 {
					jumps := least[stages.JIT] - least[stages.Draft] - least[stages.Join]
					least[stages.Jumps] = jumps
					b.ReportMetric(float64(jumps)/per/float64(passes), "jumps-ns/insn/pass")
				}
				for s, d := range least {
					if d != 0 {
						b.ReportMetric(float64(d)/per, stages.Stage(s).String()+"-ns/insn")
					}
				}
				b.ReportMetric(float64(passes), "passes")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// repeat times several runs of f.
func repeat(f func() error, times int) (time.Duration, error) {
	began := time.Now()
	for range times {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
