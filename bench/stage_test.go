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

// BenchmarkStage times the stages of compiling generated programs: see package
// stages. ns/insn of the same stage should be much the same at any size; total
// is the whole way. jumps is passes, which differ in number, so that it also has
// ns/insn/pass; the first one belongs to draft.
//
//	heat=cold   as many programs as have a million slots together, each once a
//	            round, so that sizes differ in nothing but the size
//	heat=hot    the same program again and again, as often as has some ten
//	            thousand slots: branch predictors learn a short one by heart
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

// stage times programs of n slots, each a number of times before the next.
func stage(b *testing.B, o stages.Options, n, programs, times int) {
	c := &stages.Compiler{Options: o}
	set := newSet(b, o, corpus.Generated(programs+4, n)[4:])
	passes := 0 // over slots
	for _, p := range set.programs {
		if err := c.Compile(p.slots); err != nil {
			b.Fatal(err)
		}
		passes += n * times * (c.Passes() - 1)
	}
	var least stages.Times
	round := func() {
		var t stages.Times
		began := time.Now()
		if err := set.compile(c, times, nil); err != nil {
			b.Fatal(err)
		}
		t[stages.Total] = time.Since(began)
		for _, p := range set.programs {
			for range times {
				if err := c.Watch(p.slots, &t); err != nil {
					b.Fatal(err)
				}
			}
		}
		least.Least(&t)
	}
	rounds := 0
	for ; b.Loop(); rounds++ {
		round()
	}
	for ; rounds < minRounds; rounds++ {
		round()
	}
	slots := float64(set.slots * times)
	for s, d := range least {
		if d != 0 {
			b.ReportMetric(float64(d)/slots, stages.Stage(s).String()+"-ns/insn")
		}
	}
	b.ReportMetric(float64(least[stages.Jumps])/float64(passes), "jumps-ns/insn/pass")
	b.ReportMetric(1+float64(passes)/slots, "passes")
	b.ReportMetric(0, "ns/op")
}
