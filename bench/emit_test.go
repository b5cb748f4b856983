package bench

import (
	"fmt"
	"testing"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/blind"
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
// counted, with blind=on blinding too. Slots are those before blinding.
func BenchmarkEmit(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		for _, on := range []bool{false, true} {
			b.Run("blind="+onOff(on), func(b *testing.B) {
				all, slots := compilable(b, programs)
				emit(b, all, slots, on)
			})
		}
	})
	for _, on := range []bool{false, true} {
		for _, n := range []int{20, 100, 1_000, 10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("corpus=generated/blind=%s/insns=%d", onOff(on), n), func(b *testing.B) {
				programs, err := generated(1, n)
				if err != nil {
					b.Fatal(err)
				}
				all, slots := compilable(b, programs)
				emit(b, all, slots, on)
			})
		}
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func emit(b *testing.B, programs []*bpf.Program, slots int, blinding bool) {
	b.ReportAllocs()
	total, bytes := 0, 0
	var code jit.Code
	var hidden blind.Result
	for b.Loop() {
		for _, p := range programs {
			if blinding {
				if err := hidden.Rewrite(p, nil); err != nil {
					b.Fatal(err)
				}
				p = &hidden.Program
			}
			if err := code.Compile(p, plain, mainFunc); err != nil {
				b.Fatal(err)
			}
			bytes += len(code.Bytes)
		}
		total += slots
	}
	report(b, total, bytes)
}

// BenchmarkBlind hides the constants of programs. memory=new gives every
// result its own, memory=kept uses one again.
func BenchmarkBlind(b *testing.B) {
	for _, memory := range []string{"kept", "new"} {
		for _, n := range []int{20, 1_000, 10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("memory=%s/insns=%d", memory, n), func(b *testing.B) {
				programs, err := generated(1, n)
				if err != nil {
					b.Fatal(err)
				}
				p := &bpf.Program{Insns: programs[0].Insns}
				b.ReportAllocs()
				var kept blind.Result
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
