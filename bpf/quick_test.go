package bpf_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// agree compares the two halves of Check: what passes the quick one is what
// the exact one finds no fault in.
func agree(t *testing.T, p *bpf.Program) {
	t.Helper()
	for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
		quick, err := bpf.Quick(p, d), bpf.Exact(p, d)
		if quick != (err == nil) {
			t.Errorf("%v: quick says %v, exact %v, of\n%s% x", d, quick, err, listing(p), bpf.Encode(p.Insns))
		}
	}
}

// TestQuickForms puts every opcode, alone and with every number that selects
// a form of it, between two instructions. Each field then has each of the
// values at which something changes.
func TestQuickForms(t *testing.T) {
	offs := []int16{0, 1, 2, -1, -2, -3, -4, -5, -8, -9, -505, -508, -512, -513, -520, 1<<15 - 1, 8, 16, 32}
	imms := []int32{0, 1, 2, -1, -2, -3, -4, 16, 32, 64, 1 << 16, -1 << 31, 1<<31 - 1}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		imms = append(imms, tables.Forms[f].Imm.Value)
	}
	for bit := range 32 { // whatever the quick half keeps in bits of its own
		imms = append(imms, 1<<bit)
	}
	slices.Sort(imms)
	imms = slices.Compact(imms)
	regs := []uint8{0, 1, 4, abi.R10, abi.AX, 12}
	for bit := range 16 {
		offs = append(offs, 1<<bit)
	}
	slices.Sort(offs)
	offs = slices.Compact(offs)
	exit := bpf.Insn{Op: abi.OpExit}
	p := &bpf.Program{}
	try := func(in bpf.Insn) {
		p.Insns = append(p.Insns[:0], exit, in, exit)
		agree(t, p)
		if in.Op == abi.OpLdImm64 {
			p.Insns = append(p.Insns[:0], exit, in, bpf.Insn{Imm: 7}, exit)
			agree(t, p)
		}
	}
	for op := range 256 {
		for _, dst := range regs {
			for _, src := range regs {
				for _, off := range offs {
					try(bpf.Insn{Op: uint8(op), Regs: abi.Registers(dst, src), Off: off})
				}
				for _, imm := range imms {
					try(bpf.Insn{Op: uint8(op), Regs: abi.Registers(dst, src), Imm: imm})
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// mutate changes a field of some slots.
func mutate(r *rand.Rand, p *bpf.Program) {
	for range 1 + r.IntN(3) {
		in := &p.Insns[r.IntN(len(p.Insns))]
		switch r.IntN(7) {
		case 0:
			in.Op = uint8(r.Uint32())
		case 1:
			in.Regs = uint8(r.Uint32())
		case 2:
			in.Off += int16(r.IntN(9) - 4)
		case 3:
			in.Imm += int32(r.IntN(9) - 4)
		case 4:
			*in = bpf.Insn{Op: abi.OpLdImm64, Regs: uint8(r.IntN(16) << 4)}
		case 5:
			*in = bpf.Insn{Imm: int32(r.IntN(3))}
		case 6:
			*in = p.Insns[r.IntN(len(p.Insns))]
		}
	}
	if r.IntN(2) == 0 { // a jump to anywhere, perhaps to another function
		for range 10 {
			i := r.IntN(len(p.Insns))
			if in := &p.Insns[i]; in.Op&abi.ClassMask == abi.ClassJMP32 || in.Op == abi.OpJa {
				in.Off = int16(r.IntN(len(p.Insns)) - i - 1)
				break
			}
		}
	}
	if r.IntN(8) == 0 {
		p.Flags = make([]bpf.Flag, len(p.Insns))
		p.Flags[r.IntN(len(p.Flags))] = bpf.Probe
	}
}

// TestQuickFunctions leads a jump to every slot of a program of several
// functions, and to the ones around.
func TestQuickFunctions(t *testing.T) {
	const text = "call pc+5\ncall pc+7\nr1 = 1 ll\ngoto +0\nexit\nr1 = 7\ngoto +0\nexit\nexit"
	for _, jump := range []int{4, 7} {
		passed := 0
		for to := -2; to <= 11; to++ {
			p := testprog.Parse(t, text)
			p.Insns[jump].Off = int16(to - jump - 1)
			if agree(t, p); bpf.Quick(p, bpf.Source) {
				passed++
			}
		}
		if passed == 0 {
			t.Errorf("slot %d: all refused", jump)
		}
	}
}

// TestQuickRandom compares on programs that are in order, and on such with a
// few slots changed, some of them longer than a block.
func TestQuickRandom(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for i := range 3000 {
		p := randomProgram(r, 1+r.IntN(1+i/4))
		if err := bpf.Exact(p, bpf.Source); err != nil {
			t.Fatal(err)
		}
		agree(t, p)
		mutate(r, p)
		if agree(t, p); t.Failed() {
			return
		}
	}
}

// FuzzQuick: the two halves of Check agree, and Check returns what the exact
// one does. The last byte marks a slot as a fault-tolerant load.
func FuzzQuick(f *testing.F) {
	r := testprog.Rand(testprog.Seed(f), 0)
	for range 20 {
		p := randomProgram(r, 10)
		f.Add(bpf.Encode(p.Insns))
		mutate(r, p)
		f.Add(append(bpf.Encode(p.Insns), uint8(r.Uint32())))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		n := len(code) / abi.InsnSize
		if n == 0 {
			return
		}
		insns, err := bpf.Decode(code[:n*abi.InsnSize])
		if err != nil {
			t.Fatal(err)
		}
		p := &bpf.Program{Insns: insns}
		if len(code)%abi.InsnSize != 0 {
			p.Flags = make([]bpf.Flag, n)
			p.Flags[int(code[len(code)-1])%n] = bpf.Probe
		}
		agree(t, p)
		for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
			is, want := "", ""
			if err := bpf.Check(p, d); err != nil {
				is = err.Error()
			}
			if err := bpf.Exact(p, d); err != nil {
				want = err.Error()
			}
			if is != want {
				t.Errorf("%v: Check says %q, its exact half %q", d, is, want)
			}
		}
	})
}

// TestCheckMemory: a program in order costs no allocation.
func TestCheckMemory(t *testing.T) {
	p := benchProgram(1000)
	for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
		if n := testprog.Allocations(10, func() {
			if err := bpf.Check(p, d); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", d, n)
		}
	}
	code := bpf.Encode(p.Insns)
	insns := make([]bpf.Insn, 0, len(p.Insns))
	if n := testprog.Allocations(10, func() { insns, _ = bpf.AppendDecode(insns[:0], code) }); n != 0 {
		t.Errorf("AppendDecode: %v allocations", n)
	}
}

// TestReservedBits sets each bit of a constant that must be 0: none may look
// like anything that the tables know.
func TestReservedBits(t *testing.T) {
	for _, text := range []string{"r1 = *(s8 *)(r2 + 44)", "*(u64 *)(r10 - 16) = r1", "r1 += r2", "if r1 == r2 goto +0", "goto +0", "exit"} {
		for bit := range 32 {
			p := testprog.Parse(t, text+"\nexit")
			p.Insns[0].Imm = 1 << bit
			for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
				var e *bpf.Error
				if err := bpf.Check(p, d); !errors.As(err, &e) || e.Slot != 0 || e.Field != "imm" {
					t.Errorf("%v: %s with imm %#x: %v", d, text, uint32(p.Insns[0].Imm), err)
				}
			}
		}
	}
}
