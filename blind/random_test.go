package blind

import (
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
)

// randomProgram makes a program that bpf.Check accepts, of every form that
// the dialect has: source programs of one to four functions, of which each
// calls later ones only, translated ones of one function.
func randomProgram(r *rand.Rand, d bpf.Dialect, size int) *bpf.Program {
	var forms []tables.Form
	for f := tables.Form(1); f < tables.NumForms; f++ {
		s := tables.Forms[f].Source
		if d == bpf.Translated {
			s = tables.Forms[f].Translated
		}
		if s == tables.Allowed && f != tables.FormLdSecond {
			forms = append(forms, f)
		}
	}
	p := &bpf.Program{}
	count := 1
	if d == bpf.Source {
		count += r.IntN(4)
	}
	var bounds []int
	for range count {
		bounds = append(bounds, len(p.Insns))
		for range r.IntN(size) {
			p.Insns = append(p.Insns, randomInsn(r, d, forms[r.IntN(len(forms))])...)
		}
		p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
	}
	bounds = append(bounds, len(p.Insns))
	for f := range count {
		aim(r, d, p, f, bounds)
	}
	return p
}

// randomInsn makes the slots of an instruction, all but their distances.
func randomInsn(r *rand.Rand, d bpf.Dialect, f tables.Form) []bpf.Insn {
	form := &tables.Forms[f]
	reg := func(o tables.Operand) uint8 {
		most := abi.R10
		switch {
		case o.Fixed():
			return uint8(o.Value)
		case o.Writes():
			most = abi.R9
		case d == bpf.Translated && r.IntN(16) == 0:
			return abi.AX
		}
		return uint8(r.IntN(most + 1))
	}
	insn := bpf.Insn{Op: form.Op, Off: int16(form.Off.Value), Imm: form.Imm.Value}
	insn.Regs = abi.Registers(reg(form.Dst), reg(form.Src))
	if d == bpf.Translated && form.Dst.Writes() && r.IntN(16) == 0 {
		insn.Regs = abi.Registers(abi.AX, insn.Src())
	}
	if form.Off.Use == tables.UseDisplacement {
		insn.Off = int16(r.Uint32())
		if form.Dst.Use == tables.UseAddress && insn.Dst() == abi.R10 || form.Src.Use == tables.UseAddress && insn.Src() == abi.R10 {
			insn.Off = int16(-abi.FrameBytes + r.IntN(abi.FrameBytes-7))
		}
	}
	if form.Off.Use == tables.UseTranslated && d == bpf.Translated {
		insn.Off = 1 // the number of a function is no distance
	}
	if form.Imm.Use == tables.UseConstant && r.IntN(8) != 0 {
		insn.Imm = int32(r.Uint32()) >> r.IntN(32)
	}
	if form.Op != abi.OpLdImm64 {
		return []bpf.Insn{insn}
	}
	second := bpf.Insn{Imm: int32(r.Uint32())}
	if f == tables.FormLdFunc {
		second.Imm = 0
	}
	return []bpf.Insn{insn, second}
}

// aim sets the distances of the instructions of function f.
func aim(r *rand.Rand, d bpf.Dialect, p *bpf.Program, f int, bounds []int) {
	var places []int
	for i := bounds[f]; i < bounds[f+1]; i++ {
		places = append(places, i)
		if p.Insns[i].Op == abi.OpLdImm64 {
			i++
		}
	}
	for _, i := range places {
		in := &p.Insns[i]
		if _, ok := bpf.Distance(*in); !ok {
			continue
		}
		to := places[r.IntN(len(places))]
		later := len(bounds) - 1 - (f + 1) // functions
		switch {
		case in.Op == abi.OpCall && later > 0:
			to = bounds[f+1+r.IntN(later)]
		case in.Op == abi.OpCall: // nothing left to call
			*in = bpf.Insn{Op: abi.OpCall, Imm: 1}
			continue
		case in.Op == abi.OpLdImm64:
			to = bounds[r.IntN(len(bounds)-1)]
		}
		if in.Op == abi.OpCall || in.Op == abi.OpLdImm64 || in.Op == abi.OpGotol {
			in.Imm = int32(to - i - 1)
		} else {
			in.Off = int16(to - i - 1)
		}
	}
}

// TestMoveFunctions: functions that are moved are those that would be found.
func TestMoveFunctions(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	var hidden Result
	for range 300 {
		p := randomProgram(r, bpf.Source, 1+r.IntN(100))
		if err := hidden.Rewrite(p, nil); err != nil {
			t.Fatal(err)
		}
		funcs, err := bpf.Functions(p)
		if err != nil {
			t.Fatal(err)
		}
		want, err := bpf.Functions(&hidden.Program)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, hidden.MoveFunctions(funcs)); diff != "" {
			t.Fatalf("(-found +moved):\n%s", diff)
		}
	}
}
