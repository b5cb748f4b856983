package bpf_test

import (
	"math/rand/v2"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// randomProgram makes a source program that Check accepts: one to five
// functions, each of up to size instructions, of every form that the dialect
// allows. Functions call later ones only.
func randomProgram(r *rand.Rand, size int) *bpf.Program {
	var forms []tables.Form
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if tables.Forms[f].Source == tables.Allowed && f != tables.FormLdSecond {
			forms = append(forms, f)
		}
	}
	p := &bpf.Program{}
	var starts, ends []int
	for range 1 + r.IntN(5) {
		starts = append(starts, len(p.Insns))
		for range r.IntN(size) {
			p.Insns = append(p.Insns, randomInsn(r, forms[r.IntN(len(forms))])...)
		}
		end := tables.FormJmpExit
		if r.IntN(4) == 0 {
			end = tables.FormJmpJa
		}
		p.Insns = append(p.Insns, randomInsn(r, end)...)
		ends = append(ends, len(p.Insns))
	}
	for f := range starts {
		aim(r, p, f, starts, ends)
	}
	return p
}

// randomInsn makes the slots of an instruction; distances come later.
func randomInsn(r *rand.Rand, f tables.Form) []bpf.Insn {
	form := &tables.Forms[f]
	insn := bpf.Insn{Op: form.Op, Off: int16(form.Off.Value), Imm: form.Imm.Value}
	reg := func(o tables.Operand) uint8 {
		switch {
		case o.Fixed():
			return uint8(o.Value)
		case o.Writes() || o.Use == tables.UseAddress && r.IntN(2) == 0:
			return uint8(r.IntN(abi.R10))
		}
		return uint8(r.IntN(abi.R10 + 1))
	}
	dst, src := reg(form.Dst), reg(form.Src)
	insn.Regs = abi.Registers(dst, src)
	if form.Off.Use == tables.UseDisplacement {
		insn.Off = int16(r.Uint32())
		if form.Dst.Use == tables.UseAddress && dst == abi.R10 || form.Src.Use == tables.UseAddress && src == abi.R10 {
			insn.Off = int16(-abi.FrameBytes + r.IntN(abi.FrameBytes-7))
		}
	}
	if form.Imm.Use == tables.UseConstant {
		insn.Imm = int32(r.Uint32()) >> r.IntN(32)
	}
	if form.Op == abi.OpLdImm64 {
		second := bpf.Insn{Imm: int32(r.Uint32())}
		if f == tables.FormLdFunc {
			second.Imm = 0
		}
		return []bpf.Insn{insn, second}
	}
	return []bpf.Insn{insn}
}

// aim sets the distances of the instructions of function f.
func aim(r *rand.Rand, p *bpf.Program, f int, starts, ends []int) {
	var places []int
	for i := starts[f]; i < ends[f]; i++ {
		places = append(places, i)
		if p.Insns[i].Op == abi.OpLdImm64 {
			i++
		}
	}
	for _, i := range places {
		insn := &p.Insns[i]
		if _, ok := bpf.Distance(*insn); !ok {
			continue
		}
		to := places[r.IntN(len(places))]
		switch {
		case insn.Op == abi.OpCall && f+1 < len(starts):
			to = starts[f+1+r.IntN(len(starts)-f-1)]
		case insn.Op == abi.OpCall: // nothing left to call
			insn.Regs, insn.Imm = 0, 1
			continue
		case insn.Op == abi.OpLdImm64:
			to = starts[r.IntN(len(starts))]
		}
		if insn.Op == abi.OpCall || insn.Op == abi.OpLdImm64 || insn.Op == abi.OpGotol {
			insn.Imm = int32(to - i - 1)
		} else {
			insn.Off = int16(to - i - 1)
		}
	}
}
