package bench

import (
	"fmt"
	"testing"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

// plain is the kernel profile with plain returns, which needs no addresses.
var plain = func() *jit.Profile {
	p := jit.Linux618
	p.ReturnThunk = false
	return &p
}()

// mainFunc compiles as a main program with a whole frame.
var mainFunc = &jit.Function{StackDepth: 512}

// compilable returns the programs that the profile has code for; how many it
// hasn't is logged.
func compilable(b *testing.B, programs []corpus.Program) (all []*bpf.Program, slots int) {
	for _, p := range programs {
		prog := &bpf.Program{Insns: p.Insns}
		if _, err := jit.Compile(prog, plain, mainFunc); err != nil {
			b.Logf("left out: %s: %v", p.Name, err)
			continue
		}
		all = append(all, prog)
		slots += len(p.Insns)
	}
	return all, slots
}

// BenchmarkEmit compiles every program of a corpus once a sweep, into
// memory of its own: decoded slots in, bytes out; sizing, passes and emission
// counted.
func BenchmarkEmit(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		b.Run("blind=off", func(b *testing.B) {
			all, slots := compilable(b, programs)
			emit(b, all, slots)
		})
	})
	for _, n := range []int{20, 100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("corpus=generated/blind=off/insns=%d", n), func(b *testing.B) {
			programs, err := generated(1, n)
			if err != nil {
				b.Fatal(err)
			}
			all, slots := compilable(b, programs)
			emit(b, all, slots)
		})
	}
}

func emit(b *testing.B, programs []*bpf.Program, slots int) {
	b.ReportAllocs()
	total, bytes := 0, 0
	var code jit.Code
	for b.Loop() {
		for _, p := range programs {
			if err := code.Compile(p, plain, mainFunc); err != nil {
				b.Fatal(err)
			}
			bytes += len(code.Bytes)
		}
		total += slots
	}
	report(b, total, bytes)
}
