// Command encoder generates the assembly of package encoder: writing the draft
// of a program, and joining it.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into encoder.writeJob and encoder.joinJob. A test pins them, and
// those below, to the structs.
const (
	writeInsns  = 0
	writeEnds   = 8
	writeRanks  = 16
	writeMarks  = 24
	writeFinder = 32
	writeLookup = 40
	writeSteps  = 48
	writeBits   = 56
	writeAt     = 64
	writeFirst  = 72
	writeNext   = 80
	writeStop   = 88
	writeRank   = 96
	writeClass  = 104

	joinFrom  = 0
	joinEnds  = 8
	joinMarks = 16
	joinGaps  = 24
	joinTo    = 32
	joinOut   = 40
	joinNext  = 48
	joinStop  = 56
	joinSlot  = 64
	joinEnd   = 72
	joinShift = 80
)

// Offsets into abi.Insn.
const (
	insnRegs = 1
	insnOff  = 2
)

// Offsets into encoder.finder and encoder.lookup.
const (
	finderMasks = 0
	finderBases = 2048
	finderClass = 3072

	lookupIndex = 65536
	lookupPairs = 98304
)

// Offsets into tables.Step and tables.Row, which begins with a Step.
const (
	stepHead = 0
	stepDst  = 8
	stepSrc  = 10
	stepDisp = 12
	stepImm  = 13
	stepLen  = 14
	stepSize = 16

	rowMask   = 16
	rowValue  = 24
	rowRefuse = 32
	rowPair   = 36
	rowMark   = 38
	rowFirst  = 40
	rowMore   = 45
)

// Offsets into encoder.Mark and encoder.Gap.
const (
	markSlot = 0
	markRow  = 4
	gapBytes = 0
	gapLen   = 8
)

// Numbers of tables and abi.
const (
	classBits = 23
	classAll  = 0x80000000
	opLdImm64 = 0x18
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	write()
	join()
	Generate()
}

// result is where the function's boolean result is.
func result() Mem {
	r, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	return r.Addr
}

// wide makes a constant of eight 32-bit words.
func wide(name string, word uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(word))
	}
	return m
}

// A property is a class bit that comes from a slot's constants, in the order
// of tables.ClassImm8 and so on.
type property struct {
	name string
	bit  uint32
	// test leaves ones in the words of to for which the property holds.
	test func(to reg.VecVirtual)
}

// classes writes the code that finds the classes of eight slots at p, but what
// comes from their registers. It also compares which slots are first halves of
// 64-bit constants with which are followed by second halves, and goes to bad
// where these differ.
func classes(p reg.GPVirtual, to Mem, bad LabelRef) {
	imm, low, highImm, highLow := YMM(), YMM(), YMM(), YMM()
	sum, zero, off, t := YMM(), YMM(), YMM(), YMM()
	one, byteMask, wideOp := wide("one", 1), wide("byteMask", 0xff), wide("wideOp", opLdImm64)

	// words splits slots into their constants and what is below.
	words := func(disp int, constants, rest reg.VecVirtual) {
		a, b := YMM(), YMM()
		at := func(k int) Mem { return Mem{Base: p, Disp: disp + 8*k} }
		VMOVDQU(at(0), a.AsX())
		VINSERTI128(U8(1), at(4), a, a)
		VMOVDQU(at(2), b.AsX())
		VINSERTI128(U8(1), at(6), b, b)
		VSHUFPS(U8(0xdd), b, a, constants)
		VSHUFPS(U8(0x88), b, a, rest)
	}
	Comment("imm and op, regs, off of slots 0 to 7, and of slots 1 to 8")
	words(0, imm, low)
	words(8, highImm, highLow)

	Comment("A slot is the first half of a constant if and only if the next is a second half.")
	first, second := YMM(), YMM()
	VPAND(byteMask, low, first)
	VPCMPEQD(wideOp, first, first)
	VPAND(byteMask, highLow, second)
	VPXOR(zero, zero, zero)
	VPCMPEQD(zero, second, second)
	VPXOR(first, second, first)
	VPTEST(first, first)
	JNZ(bad)

	Comment("off, with its sign")
	VPSRAD(U8(16), low, off)

	// fits8 tests whether words are bytes with a sign.
	fits8 := func(v, to reg.VecVirtual) {
		VPSLLD(U8(24), v, to)
		VPSRAD(U8(24), to, to)
		VPCMPEQD(v, to, to)
	}
	minusOne := YMM()
	VPCMPEQD(minusOne, minusOne, minusOne)
	for i, c := range []property{
		{"imm8", 1 << 8, func(to reg.VecVirtual) { fits8(imm, to) }},
		{"immNeg", 1 << 9, func(to reg.VecVirtual) { VPSRAD(U8(31), imm, to) }},
		{"immZero", 1 << 10, func(to reg.VecVirtual) { VPCMPEQD(zero, imm, to) }},
		{"immOne", 1 << 11, func(to reg.VecVirtual) { VPCMPEQD(one, imm, to) }},
		{"highZero", 1 << 12, func(to reg.VecVirtual) { VPCMPEQD(zero, highImm, to) }},
		{"highOnes", 1 << 13, func(to reg.VecVirtual) { VPCMPEQD(minusOne, highImm, to) }},
		{"off8", 1 << 14, func(to reg.VecVirtual) { fits8(off, to) }},
		{"offZero", 1 << 15, func(to reg.VecVirtual) { VPCMPEQD(zero, off, to) }},
	} {
		Comment(c.name)
		bit := wide(c.name, c.bit)
		if i == 0 {
			c.test(sum)
			VPAND(bit, sum, sum)
			continue
		}
		c.test(t)
		VPAND(bit, t, t)
		VPOR(t, sum, sum)
	}
	VMOVDQU(sum, to)
}

func write() {
	TEXT("writeAVO", NOSPLIT, "func(job *[14]uint64) (ok bool)")
	Pragma("noescape")
	Doc("writeAVO writes the steps of the slots from job.next up to job.stop. It moves",
		"next, at and rank of the job on, and returns false at a slot that has no row",
		"or isn't well-formed. It reads the slot behind each batch of eight.")
	ok := result()
	insns, ends, ranks, marks := GP64(), GP64(), GP64(), GP64()
	finder, lookup, at := GP64(), GP64(), GP64()
	i, rank, class, found := GP64(), GP64(), GP64(), GP64()
	// The second byte of a register is only in these, and read into these.
	row, regs, op, t := reg.RAX, reg.RBX, reg.RCX, reg.RDX
	imm := XMM()
	batch, stop, end := AllocLocal(32), AllocLocal(8), AllocLocal(8)
	steps, bits, kept, last := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)

	job := Mem{Base: row}
	Load(Param("job"), row)
	for _, l := range []struct {
		from int
		to   reg.GPVirtual
	}{
		{writeEnds, ends}, {writeRanks, ranks}, {writeMarks, marks}, {writeFinder, finder}, {writeLookup, lookup},
		{writeAt, at}, {writeNext, i}, {writeRank, rank}, {writeClass, class},
	} {
		MOVQ(job.Offset(l.from), l.to)
	}
	for _, l := range []struct {
		from int
		to   Mem
	}{{writeSteps, steps}, {writeBits, bits}, {writeStop, stop}} {
		MOVQ(job.Offset(l.from), t)
		MOVQ(t, l.to)
	}
	Comment("insns -= 8*first, so that slot i is insns[i]")
	MOVQ(job.Offset(writeInsns), insns)
	MOVQ(job.Offset(writeFirst), t)
	SHLQ(U8(3), t)
	SUBQ(t, insns)

	Label("batch")
	Comment("end = min(i+8, stop); found = classes of the batch - 4*i")
	LEAQ(Mem{Base: insns, Index: i, Scale: 8}, found)
	classes(found, batch, LabelRef("bad"))
	LEAQ(Mem{Base: i, Disp: 8}, t)
	MOVQ(stop, found)
	CMPQ(t, found)
	CMOVQLT(t, found)
	MOVQ(found, end)
	LEAQ(batch, found)
	MOVQ(i, t)
	SHLQ(U8(2), t)
	SUBQ(t, found)

	slot := func(disp int) Mem { return Mem{Base: insns, Index: i, Scale: 8, Disp: disp} }
	inRow := func(disp int) Mem { return Mem{Base: lookup, Index: row, Scale: 1, Disp: disp} }

	Label("loop")
	Comment("t = class of slot i")
	MOVQ(slot(0), row)
	MOVBLZX(reg.AL, op.As32())
	MOVBLZX(reg.AH, regs.As32())
	MOVL(Mem{Base: found, Index: i, Scale: 4}, t.As32())
	ORL(Mem{Base: finder, Index: regs, Scale: 4, Disp: finderClass}, t.As32())
	ORL(t.As32(), class.As32())
	Comment("row = index[Bases[op] + PEXT(slot<<classBits | t, Masks[op])]")
	SHLQ(U8(classBits), row)
	ORQ(t, row)
	PEXTQ(Mem{Base: finder, Index: op, Scale: 8, Disp: finderMasks}, row, row)
	ADDL(Mem{Base: finder, Index: op, Scale: 4, Disp: finderBases}, row.As32())
	MOVL(Mem{Base: lookup, Index: row, Scale: 4, Disp: lookupIndex}, row.As32())
	Comment("Registers that aren't any, or more than one step?")
	TESTL(t.As32(), inRow(rowRefuse))
	JNZ(LabelRef("refused"))
	Comment("slot & Mask must be Value.")
	MOVQ(inRow(rowMask), t)
	ANDQ(slot(0), t)
	CMPQ(t, inRow(rowValue))
	JNE(LabelRef("bad"))
	Comment("head = Head ^ pairs[Pair + regs]")
	MOVWLZX(inRow(rowPair), t.As32())
	ADDL(regs.As32(), t.As32())
	MOVQ(Mem{Base: lookup, Index: t, Scale: 8, Disp: lookupPairs}, t)
	XORQ(inRow(stepHead), t)

	// tail stores the head in t and behind it what the step at s has; it moves
	// at on.
	tail := func(s func(disp int) Mem) {
		Comment("Three stores; each overwrites what was too much of the one before.")
		MOVQ(t, Mem{Base: at})
		MOVBLZX(s(stepDisp), t.As32())
		MOVWLSX(slot(insnOff), op.As32())
		MOVL(op.As32(), Mem{Base: at, Index: t, Scale: 1})
		MOVBLZX(s(stepImm), t.As32())
		VPSHUFD(U8(0x0d), slot(0), imm)
		VMOVQ(imm, Mem{Base: at, Index: t, Scale: 1})
		MOVBLZX(s(stepLen), t.As32())
		ADDQ(t, at)
	}
	tail(inRow)

	Label("written")
	Comment("ends[i+1] = at; marks[rank] = {i, row}; rank += Mark; ranks[i+1] = rank")
	MOVL(at.As32(), Mem{Base: ends, Index: i, Scale: 4, Disp: 4})
	MOVL(i.As32(), Mem{Base: marks, Index: rank, Scale: 8, Disp: markSlot})
	MOVL(row.As32(), Mem{Base: marks, Index: rank, Scale: 8, Disp: markRow})
	MOVBLZX(inRow(rowMark), t.As32())
	ADDL(t.As32(), rank.As32())
	MOVL(rank.As32(), Mem{Base: ranks, Index: i, Scale: 4, Disp: 4})
	INCQ(i)
	CMPQ(i, end)
	JLT(LabelRef("loop"))
	CMPQ(i, stop)
	JLT(LabelRef("batch"))

	VZEROUPPER()
	Load(Param("job"), row)
	MOVQ(at, job.Offset(writeAt))
	MOVQ(i, job.Offset(writeNext))
	MOVQ(rank, job.Offset(writeRank))
	MOVQ(class, job.Offset(writeClass))
	MOVB(U8(1), ok)
	RET()

	Label("refused")
	ANDL(U32(classAll-1), t.As32())
	TESTL(t.As32(), inRow(rowRefuse))
	JNZ(LabelRef("bad"))
	MOVQ(inRow(rowMask), t)
	ANDQ(slot(0), t)
	CMPQ(t, inRow(rowValue))
	JNE(LabelRef("bad"))
	Comment("The steps from Steps[First] to Steps[First+More]")
	MOVQ(row, kept)
	MOVBLZX(inRow(rowMore), t.As32())
	MOVWLZX(inRow(rowFirst), row.As32())
	SHLL(U8(4), t.As32())
	SHLL(U8(4), row.As32())
	ADDQ(steps, row)
	ADDQ(row, t)
	MOVQ(t, last)
	Label("step")
	inStep := func(disp int) Mem { return Mem{Base: row, Disp: disp} }
	Comment("head = Head ^ Bits[Src+src] ^ Bits[Dst+dst]")
	MOVBLZX(slot(insnRegs), t.As32())
	MOVL(t.As32(), op.As32())
	SHRL(U8(4), t.As32())
	ANDL(U8(15), op.As32())
	ADDW(inStep(stepSrc), t.As16())
	ADDW(inStep(stepDst), op.As16())
	MOVQ(bits, regs)
	MOVQ(Mem{Base: regs, Index: t, Scale: 8}, t)
	XORQ(Mem{Base: regs, Index: op, Scale: 8}, t)
	XORQ(inStep(stepHead), t)
	tail(inStep)
	CMPQ(row, last)
	LEAQ(Mem{Base: row, Disp: stepSize}, row)
	JNE(LabelRef("step"))
	MOVQ(kept, row)
	JMP(LabelRef("written"))

	Label("bad")
	VZEROUPPER()
	MOVB(U8(0), ok)
	RET()
}

func join() {
	TEXT("joinAVO", NOSPLIT, "func(job *[11]uint64)")
	Pragma("noescape")
	Doc("joinAVO copies the draft up to each of the marks from job.next up to job.stop,",
		"and its gap behind it.")
	from, ends, marks, gaps, to, out := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k, slot, end, shift := GP64(), GP64(), GP64(), GP64()
	n, m, t := GP64(), GP64(), GP64()
	stop := AllocLocal(8)
	a, b, s := YMM(), YMM(), YMM()

	job := Mem{Base: t}
	Load(Param("job"), t)
	state := []struct {
		at int
		r  reg.GPVirtual
	}{
		{joinEnds, ends}, {joinMarks, marks}, {joinGaps, gaps}, {joinOut, out},
		{joinFrom, from}, {joinTo, to}, {joinNext, k}, {joinSlot, slot}, {joinEnd, end}, {joinShift, shift},
	}
	for _, l := range state {
		MOVQ(job.Offset(l.at), l.r)
	}
	MOVQ(job.Offset(joinStop), t)
	MOVQ(t, stop)

	Label("mark")
	Comment("m = slot of the mark; n = bytes up to the end of its steps")
	MOVL(Mem{Base: marks, Index: k, Scale: 8, Disp: markSlot}, m.As32())
	MOVL(Mem{Base: ends, Index: m, Scale: 4, Disp: 4}, t.As32())
	MOVL(t.As32(), n.As32())
	SUBL(end.As32(), n.As32())
	MOVL(t.As32(), end.As32())
	Comment("Copy 64 bytes at a time. The next piece overwrites what is too much.")
	Label("copy")
	VMOVDQU(Mem{Base: from}, a)
	VMOVDQU(Mem{Base: from, Disp: 32}, b)
	VMOVDQU(a, Mem{Base: to})
	VMOVDQU(b, Mem{Base: to, Disp: 32})
	CMPQ(n, U8(64))
	JA(LabelRef("more"))
	ADDQ(n, from)
	ADDQ(n, to)

	Comment("out[slot to m] = ends + shift, 16 at a time")
	VMOVD(shift.As32(), s.AsX())
	VPBROADCASTD(s.AsX(), s)
	Label("ends")
	VPADDD(Mem{Base: ends, Index: slot, Scale: 4, Disp: 4}, s, a)
	VPADDD(Mem{Base: ends, Index: slot, Scale: 4, Disp: 36}, s, b)
	VMOVDQU(a, Mem{Base: out, Index: slot, Scale: 4})
	VMOVDQU(b, Mem{Base: out, Index: slot, Scale: 4, Disp: 32})
	ADDQ(U8(16), slot)
	CMPQ(slot, m)
	JLE(LabelRef("ends"))
	LEAQ(Mem{Base: m, Disp: 1}, slot)

	Comment("The gap")
	MOVQ(k, t)
	SHLQ(U8(4), t)
	ADDQ(gaps, t)
	MOVQ(Mem{Base: t, Disp: gapBytes}, n)
	MOVQ(n, Mem{Base: to})
	MOVL(Mem{Base: t, Disp: gapLen}, t.As32())
	ADDQ(t, to)
	ADDL(t.As32(), shift.As32())
	ADDL(t.As32(), Mem{Base: out, Index: m, Scale: 4})
	INCQ(k)
	CMPQ(k, stop)
	JLT(LabelRef("mark"))

	VZEROUPPER()
	Load(Param("job"), t)
	for _, l := range state[4:] {
		MOVQ(l.r, job.Offset(l.at))
	}
	RET()

	Label("more")
	ADDQ(U8(64), from)
	ADDQ(U8(64), to)
	SUBQ(U8(64), n)
	JMP(LabelRef("copy"))
}
