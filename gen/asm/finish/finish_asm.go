// Command finish generates the assembly of package jit that completes joined code:
// what the passes don't write into gaps.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into jit.passJob, jit.Code, jit.Func and jit.frame. A test pins
// them, and those below, to the structs.
const (
	jobMarks     = 0
	jobCount     = 72
	jobOthers    = 96
	jobNoted     = 104
	jobCharges   = 112
	jobCharged   = 120
	jobFirstExit = 180
	jobExitOp    = 184
	jobFrame     = 192
	jobWritten   = 200 // of others
	jobPaid      = 208 // of charges

	codeBytes  = 0
	codeEnds   = 24
	codeRelocs = 96

	funcStart = 0
	funcCold  = 24

	frameEpilogue = 24

	sliceLen = 8
)

// Offsets into jit.Reloc, jit.charge and encoder.Mark.
const (
	relocSlot   = 0
	relocOffset = 8
	relocKind   = 12
	relocShift  = 4 // of its size
	chargeMark  = 0
	chargeN     = 4
	chargeSize  = 8
	markSlot    = 0
	markSize    = 8
)

// Numbers of jit and encoder.
const (
	usualEpilogue = 16
	plainSlot     = 0x0fffffff
	plainShift    = 28
	group         = 8
	callOp        = 0xea
	opJbLong      = 0x820f
	longJcc       = 6
	coldSize      = 19
	coldAsks      = 2
	coldBack      = 15
)

// vector is the size of a vector in bytes.
const vector = 16

var job, code, marks, ends, bytes, start, stop reg.GPVirtual

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	finish()
	Generate()
}

// variable is one of package jit.
func variable(name string) Mem {
	return Mem{Symbol: Symbol{Name: "·" + name}, Base: reg.StaticBase}
}

func finish() {
	TEXT("finishAVO", NOSPLIT, "func(job, code, f *uint64, stop int)")
	align.Line()
	Pragma("noescape")
	Doc("finishAVO writes plain calls up to the mark stop, as long as there is nothing else",
		"among the others, and charges. Behind the last mark it writes the epilogue.")
	job, code, marks, ends, bytes, start, stop = GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	f := GP64()
	Load(Param("job"), job)
	Load(Param("code"), code)
	Load(Param("f"), f)
	Load(Param("stop"), stop)
	MOVQ(Mem{Base: job, Disp: jobMarks}, marks)
	MOVQ(Mem{Base: code, Disp: codeBytes}, bytes)
	MOVQ(Mem{Base: f, Disp: funcStart}, start)
	Comment("ends of the function")
	MOVQ(Mem{Base: code, Disp: codeEnds}, ends)
	LEAQ(Mem{Base: ends, Index: start, Scale: 4}, ends)
	writeCalls()
	writeCharges()
	writeEpilogue()
	Label("end")
	RET()
}

// endOf leaves the slot of a mark in k, and where its code ends in end.
func endOf(k, end reg.GPVirtual) {
	MOVL(Mem{Base: marks, Index: k, Scale: markSize, Disp: markSlot}, k.As32())
	MOVL(Mem{Base: ends, Index: k, Scale: 4}, end.As32())
}

// writeCalls writes plain calls, of which the relocations are left. How many there are
// can't be foreseen, so it writes as many as most functions have at once.
func writeCalls() {
	i, others, relocs, behind, t := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(Mem{Base: job, Disp: jobWritten}, i)
	CMPQ(i, Mem{Base: job, Disp: jobNoted})
	JGE(LabelRef("called"))
	MOVQ(Mem{Base: job, Disp: jobOthers}, others)
	Comment("behind = slot behind the mark in front of stop")
	XORL(behind.As32(), behind.As32())
	TESTQ(stop, stop)
	JZ(LabelRef("begin"))
	MOVL(Mem{Base: marks, Index: stop, Scale: markSize, Disp: markSlot - markSize}, behind.As32())
	INCL(behind.As32())
	Label("begin")
	Comment("relocs = behind those that there are")
	MOVQ(Mem{Base: code, Disp: codeRelocs + sliceLen}, relocs)
	SHLQ(U8(relocShift), relocs)
	ADDQ(Mem{Base: code, Disp: codeRelocs}, relocs)
	starts, zeros := XMM(), XMM()
	VMOVD(start.As32(), starts)
	VPBROADCASTD(starts, starts)
	VPXOR(zeros, zeros, zeros)

	Label("group")
	Comment("Are all of a group plain calls, which have the uppermost bit set, and the last one in",
		"front of behind?")
	halves := [2]reg.VecVirtual{XMM(), XMM()}
	both := XMM()
	for h, half := range halves {
		VMOVDQU(Mem{Base: others, Index: i, Scale: 4, Disp: h * vector}, half)
	}
	VPAND(halves[0], halves[1], both)
	VMOVMSKPS(both, t.As32())
	CMPL(t.As32(), U8(1<<(vector/4)-1))
	JNE(LabelRef("call"))
	MOVL(Mem{Base: others, Index: i, Scale: 4, Disp: 4 * (group - 1)}, t.As32())
	ANDL(U32(plainSlot), t.As32())
	CMPL(t.As32(), behind.As32())
	JAE(LabelRef("call"))
	for h, half := range halves {
		writeHalf(half, starts, zeros, Mem{Base: others, Index: i, Scale: 4, Disp: h * vector},
			Mem{Base: relocs, Disp: h * group / 2 << relocShift})
	}
	ADDQ(U32(group<<relocShift), relocs)
	ADDQ(U8(group), i)
	CMPQ(i, Mem{Base: job, Disp: jobNoted})
	JLT(LabelRef("group"))
	MOVQ(Mem{Base: job, Disp: jobNoted}, i)
	JMP(LabelRef("other"))

	Label("call")
	Comment("One after the other, up to what is none")
	slot, kind, end := GP64(), GP64(), GP64()
	MOVL(Mem{Base: others, Index: i, Scale: 4}, slot.As32())
	MOVL(slot.As32(), kind.As32())
	TESTL(slot.As32(), slot.As32())
	JNS(LabelRef("other"))
	ANDL(U32(plainSlot), slot.As32())
	CMPL(slot.As32(), behind.As32())
	JAE(LabelRef("other"))
	SHRL(U8(plainShift), kind.As32())
	ANDL(U8(3), kind.As32())
	MOVL(Mem{Base: ends, Index: slot, Scale: 4}, end.As32())
	ADDQ(start, slot)
	SUBL(U8(4), end.As32())
	MOVQ(slot, Mem{Base: relocs, Disp: relocSlot})
	MOVL(end.As32(), Mem{Base: relocs, Disp: relocOffset})
	MOVL(kind.As32(), Mem{Base: relocs, Disp: relocKind})
	ADDQ(U8(1<<relocShift), relocs)
	INCQ(i)
	CMPQ(i, Mem{Base: job, Disp: jobNoted})
	JLT(LabelRef("call"))
	Label("other")
	Comment("There are as many relocations more as others are done more.")
	MOVQ(Mem{Base: job, Disp: jobWritten}, end)
	MOVQ(i, Mem{Base: job, Disp: jobWritten})
	SUBQ(end, i)
	ADDQ(i, Mem{Base: code, Disp: codeRelocs + sliceLen})
	Label("called")
}

// writeHalf writes the relocations of half a group of calls.
//
//	low     kind|offset  kind|offset      of calls 0 and 1, high of 2 and 3
//	slots     0 |slot      0 |slot
func writeHalf(calls, starts, zeros reg.VecVirtual, list, relocs Mem) {
	slots, offsets, kinds := XMM(), XMM(), XMM()
	VPAND(words("plainSlot", plainSlot), calls, slots)
	for k := range group / 2 {
		slot := GP64()
		MOVL(list.Offset(4*k), slot.As32())
		ANDL(U32(plainSlot), slot.As32())
		end := Mem{Base: ends, Index: slot, Scale: 4}
		if k == 0 {
			VMOVD(end, offsets)
		} else {
			VPINSRD(U8(k), end, offsets, offsets)
		}
	}
	VPADDD(words("less4", ^uint32(3)), offsets, offsets)
	VPADDD(starts, slots, slots)
	VPSRLD(U8(plainShift), calls, kinds)
	VPAND(words("src", 3), kinds, kinds)
	for _, unpack := range []func(...Op){VPUNPCKLDQ, VPUNPCKHDQ} {
		fields, both, reloc := XMM(), XMM(), XMM()
		unpack(zeros, slots, both)
		unpack(kinds, offsets, fields)
		VPUNPCKLQDQ(fields, both, reloc)
		VMOVDQU(reloc, relocs)
		VPUNPCKHQDQ(fields, both, reloc)
		VMOVDQU(reloc, relocs.Offset(1<<relocShift))
		relocs = relocs.Offset(2 << relocShift)
	}
}

// words makes a constant of the same word four times, or finds the one that it has made
// before.
func words(name string, word uint32) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for at := 0; at < vector; at += 4 {
		DATA(at, U32(word))
	}
	made[name] = m
	return m
}

var made = map[string]Mem{}

// writeCharges writes jumps to cold code, and that code.
func writeCharges() {
	i, at, k := GP64(), GP64(), GP64()
	w := chargeWriter{i: i, at: at, charges: GP64(), cold: XMM()}
	MOVQ(Mem{Base: job, Disp: jobPaid}, i)
	CMPQ(i, Mem{Base: job, Disp: jobCharged})
	JGE(LabelRef("charged"))
	MOVQ(Mem{Base: job, Disp: jobCharges}, w.charges)
	MOVOU(variable("cold"), w.cold)
	Comment("at = where the cold code of charge i is to be")
	IMUL3Q(U8(coldSize), i, k)
	Load(Param("f"), at)
	MOVL(Mem{Base: at, Disp: funcCold}, at.As32())
	ADDQ(k, at)
	Label("pair")
	Comment("Of two charges the second comes first. Behind the last one stands that again: it gets",
		"cold code of its own, behind the limit, until the first of the two takes its place.")
	MOVL(w.charge(1, chargeMark), k.As32())
	CMPQ(k, stop)
	JGE(LabelRef("charge"))
	w.write(1)
	w.write(0)
	ADDQ(U8(2*coldSize), at)
	ADDQ(U8(2), i)
	CMPQ(i, Mem{Base: job, Disp: jobCharged})
	JLT(LabelRef("pair"))
	MOVQ(Mem{Base: job, Disp: jobCharged}, i)
	JMP(LabelRef("behind"))
	Label("charge")
	Comment("The last one in front of stop")
	MOVL(w.charge(0, chargeMark), k.As32())
	CMPQ(k, stop)
	JGE(LabelRef("behind"))
	w.write(0)
	INCQ(i)
	Label("behind")
	MOVQ(i, Mem{Base: job, Disp: jobPaid})
	Label("charged")
}

// A chargeWriter writes charges, from the one with the number i on.
type chargeWriter struct {
	i, charges reg.GPVirtual
	at         reg.GPVirtual // where the cold code of that is to be
	cold       reg.VecVirtual
}

// charge is a field of charge i+n.
func (w *chargeWriter) charge(n, field int) Mem {
	return Mem{Base: w.charges, Index: w.i, Scale: chargeSize, Disp: n*chargeSize + field}
}

// write writes charge i+n.
func (w *chargeWriter) write(n int) {
	k, back, d := GP64(), GP64(), GP64()
	behind := func(base reg.GPVirtual, disp int) Mem { return Mem{Base: bytes, Index: base, Scale: 1, Disp: disp} }
	Comment("jb at")
	MOVL(w.charge(n, chargeMark), k.As32())
	endOf(k, back)
	LEAL(Mem{Base: w.at, Disp: n * coldSize}, d.As32())
	SUBL(back.As32(), d.As32())
	MOVW(U16(opJbLong), behind(back, -longJcc))
	MOVL(d.As32(), behind(back, -4))
	Comment("The vector has all but the distance back, from the cold code's end.")
	MOVL(w.charge(n, chargeN), k.As32())
	MOVOU(w.cold, behind(w.at, n*coldSize))
	MOVL(k.As32(), behind(w.at, n*coldSize+coldAsks))
	ADDL(U8(coldSize), d.As32())
	NEGL(d.As32())
	MOVL(d.As32(), behind(w.at, n*coldSize+coldBack))
}

// writeEpilogue writes the epilogue, if that isn't among the others.
func writeEpilogue() {
	masks := GLOBL("masks", RODATA|NOPTR)
	for i, bits := range [...]uint64{^uint64(0), ^uint64(0), 0, 0} {
		DATA(8*i, U64(bits))
	}
	at, frame, n, mask := GP64(), GP64(), GP64(), GP64()
	epilogue, behind, keep := XMM(), XMM(), XMM()
	CMPQ(stop, Mem{Base: job, Disp: jobCount})
	JLT(LabelRef("end"))
	CMPL(Mem{Base: job, Disp: jobExitOp}, U32(callOp))
	JNE(LabelRef("end"))
	MOVL(Mem{Base: job, Disp: jobFirstExit}, at.As32())
	CMPL(at.As32(), I8(-1))
	JEQ(LabelRef("end"))
	Comment("keep = the bytes behind the epilogue's n, of a vector from its first on")
	MOVQ(Mem{Base: job, Disp: jobFrame}, frame)
	MOVQ(Mem{Base: frame, Disp: frameEpilogue + sliceLen}, n)
	MOVQ(Mem{Base: frame, Disp: frameEpilogue}, frame)
	MOVL(Mem{Base: ends, Index: at, Scale: 4}, at.As32())
	SUBQ(n, at)
	LEAQ(masks, mask)
	SUBQ(n, mask)
	MOVOU(Mem{Base: mask, Disp: usualEpilogue}, keep)
	MOVOU(Mem{Base: frame}, epilogue)
	MOVOU(Mem{Base: bytes, Index: at, Scale: 1}, behind)
	PAND(keep, epilogue)
	PANDN(behind, keep)
	POR(epilogue, keep)
	MOVOU(keep, Mem{Base: bytes, Index: at, Scale: 1})
}
