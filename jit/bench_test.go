package jit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// BenchmarkPasses runs all passes but the first, which laying out is, over the
// jumps of a program with the opcode frequencies of real ones. The number of
// passes differs, so that one pass is what can be compared.
func BenchmarkPasses(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("insns=%d", n), func(b *testing.B) {
			p := &bpf.Program{Insns: testprog.Mixed(5, n).Insns}
			c := &compiler{profile: &Linux618, prog: p, fn: new(Function)}
			code := new(Code)
			code.reset(n, 1)
			f := &code.Funcs[0]
			f.End = n
			if err := c.function(code, f); err != nil {
				b.Fatal(err)
			}
			c.begin()
			if err := c.layOut(); err != nil {
				b.Fatal(err)
			}
			if err := c.laidOut(); err != nil {
				b.Fatal(err)
			}
			first := slices.Clone(c.sums) // of the pass that laying out is
			b.ReportAllocs()
			for b.Loop() {
				copy(c.sums, first)
				if err := c.converge(condensed); err != nil {
					b.Fatal(err)
				}
			}
			perPass := float64(b.Elapsed().Nanoseconds()) / float64(b.N*(len(c.passes)-1))
			b.ReportMetric(perPass/float64(n), "ns/insn/pass")
			b.ReportMetric(float64(len(c.passes)), "passes")
		})
	}
}
