// Command finish generates the assembly of package jit that completes joined code:
// what the passes don't write into gaps.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into jit.passJob, jit.Code, jit.Func, jit.frame and jit.done. A test pins
// them, and those below, to the structs.
const (
	jobMarks     = 0
	jobCount     = 72
	jobOthers    = 96
	jobNoted     = 104
	jobCharges   = 112
	jobCharged   = 120
	jobLengths   = 128
	jobFirstExit = 180
	jobExitOp    = 184

	codeBytes  = 0
	codeEnds   = 24
	codeRelocs = 96

	funcStart  = 0
	funcCold   = 24
	funcPasses = 32

	frameEpilogue = 24

	doneOthers  = 0
	doneCharges = 8

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
	usualPasses   = 8
	usualEpilogue = 16
	markOfOther   = 0x0fffffff
	plainShift    = 28
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
	TEXT("finishAVO", NOSPLIT, "func(job, code, f, frame, done *uint64, stop int)")
	align.Line()
	Pragma("noescape")
	Doc("finishAVO notes the passes in f, and writes plain calls up to the mark stop, as long",
		"as there is nothing else among the others, and charges. Behind the last mark it",
		"writes the epilogue.")
	job, code, marks, ends, bytes, start, stop = GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	f := GP64()
	Load(Param("job"), job)
	Load(Param("code"), code)
	Load(Param("f"), f)
	Load(Param("stop"), stop)
	keepPasses(f)
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

// keepPasses copies the lengths of usual passes.
func keepPasses(f reg.Register) {
	from, to := GP64(), GP64()
	MOVQ(Mem{Base: job, Disp: jobLengths}, from)
	MOVQ(Mem{Base: f, Disp: funcPasses}, to)
	for at := 0; at < 8*usualPasses; at += vector {
		v := XMM()
		MOVOU(Mem{Base: from, Disp: at}, v)
		MOVOU(v, Mem{Base: to, Disp: at})
	}
}

// endOf leaves the slot of a mark in k, and where its code ends in end.
func endOf(k, end reg.GPVirtual) {
	MOVL(Mem{Base: marks, Index: k, Scale: markSize, Disp: markSlot}, k.As32())
	MOVL(Mem{Base: ends, Index: k, Scale: 4}, end.As32())
}

// writeCalls writes plain calls, of which the last byte and the relocation are left.
func writeCalls() {
	done := GP64()
	i, others, relocs, kinds := GP64(), GP64(), GP64(), GP64()
	k, kind, end := GP64(), GP64(), GP64()
	Load(Param("done"), done)
	MOVQ(Mem{Base: done, Disp: doneOthers}, i)
	CMPQ(i, Mem{Base: job, Disp: jobNoted})
	JGE(LabelRef("called"))
	MOVQ(Mem{Base: job, Disp: jobOthers}, others)
	LEAQ(variable("callRelocs"), kinds)
	Comment("relocs = behind those that there are")
	MOVQ(Mem{Base: code, Disp: codeRelocs + sliceLen}, relocs)
	SHLQ(U8(relocShift), relocs)
	ADDQ(Mem{Base: code, Disp: codeRelocs}, relocs)
	Label("call")
	Comment("k = number of the mark; plain calls have the uppermost bit set")
	MOVL(Mem{Base: others, Index: i, Scale: 4}, k.As32())
	MOVL(k.As32(), kind.As32())
	TESTL(k.As32(), k.As32())
	JNS(LabelRef("other"))
	ANDL(U32(markOfOther), k.As32())
	CMPQ(k, stop)
	JGE(LabelRef("other"))
	SHRL(U8(plainShift), kind.As32())
	ANDL(U8(3), kind.As32())
	MOVBLZX(Mem{Base: kinds, Index: kind, Scale: 1}, kind.As32())
	endOf(k, end)
	MOVB(U8(0), Mem{Base: bytes, Index: end, Scale: 1, Disp: -1})
	ADDQ(start, k)
	SUBL(U8(4), end.As32())
	MOVQ(k, Mem{Base: relocs, Disp: relocSlot})
	MOVL(end.As32(), Mem{Base: relocs, Disp: relocOffset})
	MOVL(kind.As32(), Mem{Base: relocs, Disp: relocKind})
	ADDQ(U8(1<<relocShift), relocs)
	INCQ(i)
	CMPQ(i, Mem{Base: job, Disp: jobNoted})
	JLT(LabelRef("call"))
	Label("other")
	Comment("There are as many relocations more as others are done more.")
	Load(Param("done"), done)
	MOVQ(Mem{Base: done, Disp: doneOthers}, k)
	MOVQ(i, Mem{Base: done, Disp: doneOthers})
	SUBQ(k, i)
	ADDQ(i, Mem{Base: code, Disp: codeRelocs + sliceLen})
	Label("called")
}

// writeCharges writes jumps to cold code, and that code.
func writeCharges() {
	done := GP64()
	i, charges, at := GP64(), GP64(), GP64()
	k, back, d := GP64(), GP64(), GP64()
	cold := XMM()
	Load(Param("done"), done)
	MOVQ(Mem{Base: done, Disp: doneCharges}, i)
	CMPQ(i, Mem{Base: job, Disp: jobCharged})
	JGE(LabelRef("charged"))
	MOVQ(Mem{Base: job, Disp: jobCharges}, charges)
	MOVOU(variable("cold"), cold)
	Comment("at = where the cold code of charge i is to be")
	IMUL3Q(U8(coldSize), i, d)
	Load(Param("f"), at)
	MOVL(Mem{Base: at, Disp: funcCold}, at.As32())
	ADDQ(d, at)
	Label("charge")
	MOVL(Mem{Base: charges, Index: i, Scale: chargeSize, Disp: chargeMark}, k.As32())
	CMPQ(k, stop)
	JGE(LabelRef("behind"))
	endOf(k, back)
	Comment("jb at")
	MOVL(at.As32(), d.As32())
	SUBL(back.As32(), d.As32())
	MOVW(U16(opJbLong), Mem{Base: bytes, Index: back, Scale: 1, Disp: -longJcc})
	MOVL(d.As32(), Mem{Base: bytes, Index: back, Scale: 1, Disp: -4})
	Comment("The vector has all but the distance back, from the cold code's end.")
	MOVL(Mem{Base: charges, Index: i, Scale: chargeSize, Disp: chargeN}, k.As32())
	MOVOU(cold, Mem{Base: bytes, Index: at, Scale: 1})
	MOVL(k.As32(), Mem{Base: bytes, Index: at, Scale: 1, Disp: coldAsks})
	ADDL(U8(coldSize), d.As32())
	NEGL(d.As32())
	MOVL(d.As32(), Mem{Base: bytes, Index: at, Scale: 1, Disp: coldBack})
	ADDQ(U8(coldSize), at)
	INCQ(i)
	CMPQ(i, Mem{Base: job, Disp: jobCharged})
	JLT(LabelRef("charge"))
	Label("behind")
	MOVQ(i, Mem{Base: done, Disp: doneCharges})
	Label("charged")
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
	Load(Param("frame"), frame)
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
