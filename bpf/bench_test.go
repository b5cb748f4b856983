package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
)

// benchProgram is a program of n slots that Check accepts, with a branch in
// every eighth slot.
func benchProgram(n int) *bpf.Program {
	r := rand.New(rand.NewPCG(1, 2))
	p := &bpf.Program{}
	for i := range n - 1 {
		insn := bpf.Insn{Op: 0x07, Regs: uint8(r.IntN(10)), Imm: r.Int32()}
		if i%8 == 7 {
			insn = bpf.Insn{Op: 0x15, Regs: uint8(r.IntN(10)), Off: int16(-r.IntN(8)), Imm: r.Int32()}
		}
		p.Insns = append(p.Insns, insn)
	}
	p.Insns = append(p.Insns, bpf.Insn{Op: 0x95})
	return p
}

func each(b *testing.B, f func(p *bpf.Program)) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("insns=%d", n), func(b *testing.B) {
			p := benchProgram(n)
			b.ReportAllocs()
			for b.Loop() {
				f(p)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/insn")
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	each(b, func(p *bpf.Program) {
		if err := bpf.Check(p, bpf.Source); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkCharges(b *testing.B) {
	each(b, func(p *bpf.Program) { bpf.Charges(p) })
}

// BenchmarkApply replaces every instruction by three, as blinding does.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("insns=%d", n), func(b *testing.B) {
			p := benchProgram(n)
			var patches []bpf.Patch
			for i, insn := range p.Insns[:n-1] {
				patches = append(patches, bpf.Patch{Slot: i, Own: 2, Insns: []bpf.Insn{{Op: 0xb7, Regs: 11}, {Op: 0xa7, Regs: 11}, insn}})
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bpf.Apply(p, patches); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/insn")
		})
	}
}
