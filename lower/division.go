package lower

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// What a division gives (RFC 9669, section 4.1), and what x86 makes of it:
//
//	              / 0   % 0        MIN / -1   MIN % -1
//	RFC 9669      0     dst        MIN        0
//	x86           trap  trap       trap       trap
//
// where the 32-bit forms clear the upper half of dst in any case, and MIN is
// the least signed number of the width. Only signed divisions overflow.
//
// A signed division by 0 or -1 is a multiplication. With q the divisor,
//
//	dst / q  =  dst * q        0 for 0, -dst for -1
//	dst % q  =  dst * (q + 1)  dst for 0, 0 for -1
//
// so one compare finds both divisors, unsigned: q + 1 > 1 is an ordinary one.

// forms are the instructions of one width.
type forms struct {
	jeq, jne, jgt, mov, movK, xor, addK, mul, neg tables.Form
}

var width64 = forms{
	jeq: tables.FormJmpJeqK, jne: tables.FormJmpJneK, jgt: tables.FormJmpJgtK,
	mov: tables.FormAlu64MovX, movK: tables.FormAlu64MovK, xor: tables.FormAlu32XorX,
	addK: tables.FormAlu64AddK, mul: tables.FormAlu64MulX, neg: tables.FormAlu64Neg,
}

var width32 = forms{
	jeq: tables.FormJmp32JeqK, jne: tables.FormJmp32JneK, jgt: tables.FormJmp32JgtK,
	mov: tables.FormAlu32MovX, movK: tables.FormAlu32MovK, xor: tables.FormAlu32XorX,
	addK: tables.FormAlu32AddK, mul: tables.FormAlu32MulX, neg: tables.FormAlu32Neg,
}

const opMod = 0x90

// division guards the division in a slot, if it can trap.
func (l *lowerer) division(slot int, insn bpf.Insn) {
	w := &width64
	if insn.Op&abi.ClassMask == abi.ClassALU {
		w = &width32
	}
	mod := insn.Op&abi.OpMask == opMod
	signed := insn.Off != 0
	switch {
	case insn.Op&abi.SourceX == 0:
		l.byConstant(slot, insn, w, mod, signed)
	case signed:
		l.signed(slot, insn, w, mod)
	case mod:
		l.unsignedMod(slot, insn, w)
	default:
		l.unsignedDiv(slot, insn, w)
	}
}

// byConstant replaces a division by 0, or a signed one by -1, by its result.
func (l *lowerer) byConstant(slot int, insn bpf.Insn, w *forms, mod, signed bool) {
	dst := insn.Dst()
	switch {
	case insn.Imm == 0 && mod:
		l.patch(slot, 0, alu(w.mov, dst, dst, 0))
	case insn.Imm == 0, insn.Imm == -1 && signed && mod:
		l.patch(slot, 0, alu(w.movK, dst, 0, 0))
	case insn.Imm == -1 && signed:
		l.patch(slot, 0, alu(w.neg, dst, 0, 0))
	}
}

// unsignedDiv
//
//	if src != 0 goto +2
//	dst ^= dst
//	goto +1
//	dst /= src
func (l *lowerer) unsignedDiv(slot int, insn bpf.Insn, w *forms) {
	dst, src := insn.Dst(), insn.Src()
	l.patch(slot, 3,
		jump(w.jne, src, 0, 0, +2),
		alu(w.xor, dst, dst, 0),
		jump(tables.FormJmpJa, 0, 0, 0, +1),
		insn,
	)
}

// unsignedMod
//
//	dst = dst             only with 32 bits: clears the upper half
//	if src == 0 goto +1
//	dst %= src
func (l *lowerer) unsignedMod(slot int, insn bpf.Insn, w *forms) {
	dst, src := insn.Dst(), insn.Src()
	if w == &width64 {
		l.patch(slot, 1, jump(w.jeq, src, 0, 0, +1), insn)
		return
	}
	l.patch(slot, 2, alu(w.mov, dst, dst, 0), jump(w.jeq, src, 0, 0, +1), insn)
}

// signed
//
//	ax = src
//	ax += 1
//	if ax > 1 goto +2
//	dst *= src            or dst *= ax for a modulo
//	goto +1
//	dst s/= src
func (l *lowerer) signed(slot int, insn bpf.Insn, w *forms, mod bool) {
	dst, src := insn.Dst(), insn.Src()
	factor := src
	if mod {
		factor = abi.AX
	}
	l.patch(slot, 5,
		alu(w.mov, abi.AX, src, 0),
		alu(w.addK, abi.AX, 0, 1),
		jump(w.jgt, abi.AX, 0, 1, +2),
		alu(w.mul, dst, factor, 0),
		jump(tables.FormJmpJa, 0, 0, 0, +1),
		insn,
	)
}
