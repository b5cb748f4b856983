package encoder

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// frequencies are how often the most frequent opcodes stand in 446 programs of
// Cilium, Falco, Katran and others, in a thousandth of all instructions. They
// are 98 % of those programs.
var frequencies = []struct {
	form     string
	thousand int
}{
	{"alu64.mov.x", 112}, {"alu64.add.k", 58}, {"ldx.mem.b", 56}, {"alu32.mov.k", 55}, {"jmp.call", 48},
	{"ld.imm64", 47}, {"alu64.mov.k", 46}, {"alu64.lsh.k", 43}, {"ldx.mem.dw", 41}, {"stx.mem.dw", 39},
	{"stx.mem.b", 39}, {"stx.mem.w", 37}, {"ldx.mem.w", 36}, {"alu64.or.x", 35}, {"alu64.rsh.k", 32},
	{"alu32.mov.x", 28}, {"jmp.jeq.k", 23}, {"jmp.ja", 22}, {"stx.mem.h", 18}, {"jmp32.jeq.k", 18},
	{"alu32.and.k", 15}, {"alu64.add.x", 13}, {"jmp.jne.k", 11}, {"jmp32.jne.k", 10}, {"ldx.mem.h", 9},
	{"alu32.or.x", 9}, {"alu64.and.k", 9}, {"alu32.lsh.k", 8}, {"alu32.add.k", 8}, {"alu32.add.x", 6},
	{"jmp32.jslt.k", 6}, {"alu32.rsh.k", 5}, {"end.be16", 5}, {"jmp.jgt.x", 5}, {"alu32.or.k", 4},
	{"jmp.jsgt.k", 4}, {"jmp.jgt.k", 3}, {"alu64.div.k", 3}, {"alu64.and.x", 3}, {"alu64.arsh.k", 2},
}

// mixed returns a program of n slots with those frequencies. Registers are any
// but R10, which is the base of half of all accesses to memory; most constants
// and offsets are small.
func mixed(n int) []abi.Insn {
	r := rand.New(rand.NewPCG(1, 2))
	var bag []tables.Form
	for _, fr := range frequencies {
		for f := range tables.Forms {
			for i := 0; i < fr.thousand && tables.Forms[f].Name == fr.form; i++ {
				bag = append(bag, tables.Form(f))
			}
		}
	}
	var prog []abi.Insn
	for len(prog) < n-1 {
		slots := instance(r, pick(r, bag...))
		in := &slots[0]
		info := &tables.Forms[formAt(in)]
		dst, src := in.Dst()%10, in.Src()
		if !info.Src.Fixed() {
			src %= 10
		}
		if info.Dst.Use == tables.UseAddress && r.IntN(2) == 0 {
			dst = abi.R10
		}
		if info.Src.Use == tables.UseAddress && r.IntN(2) == 0 {
			src = abi.R10
		}
		in.Regs = abi.Registers(dst, src)
		if info.Off.Use == tables.UseDisplacement && r.IntN(10) > 0 {
			in.Off = int16(int8(in.Off))
		}
		if info.Imm.Use == tables.UseConstant && r.IntN(4) > 0 {
			in.Imm &= 63
		}
		prog = append(prog, slots...)
	}
	return append(prog[:n-1], abi.Insn{Op: abi.OpExit})
}

// formAt returns the form of an instruction that has one.
func formAt(in *abi.Insn) tables.Form {
	f, ok := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
	if !ok {
		panic(fmt.Sprintf("BUG: %v has no form", *in))
	}
	return f
}

// benchmark runs f for every implementation, profile and size.
func benchmark(b *testing.B, f func(b *testing.B, im impl, p tables.Profile, prog []abi.Insn)) {
	for _, n := range []int{100, 1000, 100_000} {
		prog := mixed(n)
		for _, p := range []int{0, 3} {
			for _, im := range impls {
				b.Run(fmt.Sprintf("impl=%s/insns=%d/profile=%s", im.name, n, profiles[p].name), func(b *testing.B) {
					f(b, im, profiles[p].profile, prog)
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/insn")
				})
			}
		}
	}
}

// BenchmarkWrite counts the bytes of slots that go in.
func BenchmarkWrite(b *testing.B) {
	benchmark(b, func(b *testing.B, im impl, p tables.Profile, prog []abi.Insn) {
		d := newDraft(len(prog))
		b.SetBytes(int64(len(prog) * abi.InsnSize))
		b.ReportAllocs()
		for b.Loop() {
			if !im.write(d, p, prog, false) {
				b.Fatal("refused")
			}
		}
	})
}

// BenchmarkJoin counts the bytes of code that come out, gaps included.
func BenchmarkJoin(b *testing.B) {
	benchmark(b, func(b *testing.B, im impl, p tables.Profile, prog []abi.Insn) {
		d := newDraft(len(prog))
		if !im.write(d, p, prog, false) {
			b.Fatal("refused")
		}
		_, marks := d.Before(uint32(len(prog)))
		d.Marks = d.Marks[:marks]
		gaps := make([]Gap, len(d.Marks), len(d.Marks)+1)
		for k := range gaps {
			gaps[k] = MakeGap(0, 5)
		}
		size := d.Len() + 5*len(gaps)
		code, ends := make([]byte, size+Slack), make([]uint32, len(prog)+EndsSlack)
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			im.join(d, code, 0, gaps, ends)
		}
	})
}

// newDraft returns a draft with memory for n slots.
func newDraft(n int) *Draft {
	return &Draft{
		Ends: make([]uint32, n+1, n+1+EndsSlack), Ranks: make([]uint32, n+1), Marks: make([]Mark, n+1),
		code: make([]byte, n*Longest+Slack),
	}
}
