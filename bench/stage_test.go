package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/lower"
)

// staged is a program as each of the stages before compiling takes it.
type staged struct {
	code    []byte
	source  *bpf.Program
	lowered *bpf.Program
}

// stages makes the inputs of the programs that pass all stages. Left out and
// logged are those with instructions of the kernel alone.
func stages(b *testing.B, programs []corpus.Program) (list []staged, slots int) {
	for _, p := range programs {
		s := staged{code: bpf.Encode(p.Insns), source: &bpf.Program{Insns: p.Insns}}
		err := bpf.Check(s.source, bpf.Source)
		if err == nil {
			s.lowered, err = lower.Lower(s.source)
		}
		if err != nil {
			b.Logf("left out: %s: %v", p.Name, err)
			continue
		}
		list = append(list, s)
		slots += len(p.Insns)
	}
	return list, slots
}

// BenchmarkStage runs one stage in front of the compiler on every program of
// a corpus once a sweep, with memory that is used again. min-ns/insn is that
// of the least disturbed sweep. Slots are those of the source.
func BenchmarkStage(b *testing.B) {
	run := func(b *testing.B, programs []corpus.Program) {
		list, slots := stages(b, programs)
		var insns []bpf.Insn
		var hidden blind.Result
		var lowered lower.Result
		for _, stage := range []struct {
			name string
			run  func(s *staged) error
		}{
			{"decode", func(s *staged) (err error) {
				insns, err = bpf.AppendDecode(insns[:0], s.code)
				return err
			}},
			{"check/dialect=source", func(s *staged) error { return bpf.Check(s.source, bpf.Source) }},
			{"check/dialect=translated", func(s *staged) error {
				bpf.Check(s.source, bpf.Translated) // a source program may have callx or may_goto
				return nil
			}},
			{"lower", func(s *staged) error {
				return lowered.Lower(s.source)
			}},
			{"blind/program=source", func(s *staged) error { return hidden.Rewrite(s.source, nil) }},
			{"blind/program=lowered", func(s *staged) error { return hidden.Rewrite(s.lowered, nil) }},
		} {
			b.Run("stage="+stage.name, func(b *testing.B) {
				b.ReportAllocs()
				least := time.Duration(1 << 62)
				for b.Loop() {
					start := time.Now()
					for i := range list {
						if err := stage.run(&list[i]); err != nil {
							b.Fatal(err)
						}
					}
					least = min(least, time.Since(start))
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*slots), "ns/insn")
				b.ReportMetric(float64(least.Nanoseconds())/float64(slots), "min-ns/insn")
			})
		}
	}
	corpora(b, run)
	for _, n := range []int{20, 100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("corpus=generated/insns=%d", n), func(b *testing.B) {
			programs, err := generated(1, n)
			if err != nil {
				b.Fatal(err)
			}
			run(b, programs)
		})
	}
}
