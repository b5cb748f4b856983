package bench

import (
	"fmt"
	"testing"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bench/internal/reemit"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// compile compiles all programs, each several times before the next, and adds
// up the bytes of one time.
func (s set) compile(c *stages.Compiler, times int, bytes *int) error {
	total := 0
	for i := range s.programs {
		for range times {
			if err := c.Compile(s.programs[i].slots); err != nil {
				return err
			}
		}
		total += len(c.Code().Bytes)
	}
	if bytes != nil {
		*bytes = total
	}
	return nil
}

// BenchmarkEmit compiles programs: bytes of slots in, bytes of code out, into
// memory of its own. Decoding, checking, lowering in the cage, blinding where
// it is on, sizes, passes and emission count; publishing does not. Slots are
// those of the program as it was, before lowering and blinding.
//
//	heat=cold   every program once a sweep
//	heat=hot    each several times before the next
//
// ns/insn is that of the least disturbed sweep; of corpora there are at least
// 20. The figure that counts is corpus=shared/…/heat=cold.
func BenchmarkEmit(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		eachWay(b, func(b *testing.B, o stages.Options) {
			set := newSet(b, o, programs)
			emit(b, minSweeps, o, set, "cold", 1)
			emit(b, minSweeps, o, set, "hot", 10)
		})
	})
	for _, n := range sizes {
		programs := generated(n)
		for _, blind := range []bool{false, true} {
			for _, cage := range []bool{false, true} {
				o := stages.Options{Cage: cage, Blind: blind}
				b.Run(fmt.Sprintf("corpus=generated/insns=%d/%s", n, way(o)), func(b *testing.B) {
					set := newSet(b, o, programs)
					emit(b, fewSweeps, o, set, "cold", 1)
					if times := hotSlots / n; times > 1 {
						set.programs, set.slots = set.programs[:1], n
						emit(b, fewSweeps, o, set, "hot", times)
					}
				})
			}
		}
	}
}

func emit(b *testing.B, atLeast int, o stages.Options, set set, heat string, times int) {
	b.Run("heat="+heat, func(b *testing.B) {
		c := &stages.Compiler{Options: o}
		bytes := 0
		s := sweep(b, atLeast, func() error { return set.compile(c, times, &bytes) })
		s[0].report(b, len(set.programs)*times, set.slots*times, bytes*times)
	})
}

// BenchmarkEmitReemit compiles programs the plain way: every pass translates
// every instruction again (package reemit). Decoding counts, checking does
// not. Its sweeps take turns with sweeps of BenchmarkEmit, which does check;
// reemit/emit is the ratio of the least disturbed ones.
func BenchmarkEmitReemit(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		set := newSet(b, stages.Options{}, programs)
		var plain reemit.Compiler
		bytes := 0
		reemitSweep := func() error {
			bytes = 0
			for i := range set.programs {
				insns, err := bpf.Decode(set.programs[i].slots)
				if err != nil {
					return err
				}
				if err := plain.Compile(insns); err != nil {
					return err
				}
				bytes += len(plain.Code)
			}
			return nil
		}
		var c stages.Compiler
		s := sweep(b, minSweeps, reemitSweep, func() error { return set.compile(&c, 1, nil) })
		s[0].report(b, len(set.programs), set.slots, bytes)
		b.ReportMetric(float64(s[0].least)/float64(s[1].least), "reemit/emit")
	})
}

// BenchmarkBlind hides the constants of programs. memory=new gives every
// result its own, memory=kept uses one again.
func BenchmarkBlind(b *testing.B) {
	for _, memory := range []string{"kept", "new"} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("memory=%s/insns=%d", memory, n), func(b *testing.B) {
				p := &bpf.Program{Insns: corpus.Generated(1, n)[0].Insns}
				b.ReportAllocs()
				var kept blind.Result
				if err := kept.Rewrite(p, nil); err != nil { // takes the memory that is kept
					b.Fatal(err)
				}
				for b.Loop() {
					r := &kept
					if memory == "new" {
						r = new(blind.Result)
					}
					if err := r.Rewrite(p, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/insn")
			})
		}
	}
}
