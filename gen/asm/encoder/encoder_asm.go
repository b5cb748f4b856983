// Command encoder generates the assembly of package encoder: finding the row
// of every instruction of a program, and writing the bytes of all rows.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into encoder.measureJob and encoder.emitJob. A test pins them, and
// those below, to the structs.
const (
	jobInsns = 0
	jobRows  = 8
	jobOut   = 16 // pos, or ends
	jobMarks = 24 // marks, or gaps
	jobNext  = 32
	jobStop  = 40
	jobCount = 48
	jobTable = 56

	measureFirst   = 64
	measureFinders = 72
	measureIndex   = 80
	measureClass   = 88

	emitSteps   = 64
	emitBits    = 72
	emitNumRows = 80
	emitCode    = 88
	emitRoom    = 96
	emitAt      = 104
	emitMark    = 112
	emitGaps    = 120
)

// Offsets into abi.Insn.
const (
	insnOp   = 0
	insnRegs = 1
	insnOff  = 2
)

// Offsets into tables.Finder; its size is 1<<finderShift.
const (
	finderMask  = 0
	finderMul   = 8
	finderLast  = 16
	finderBase  = 24
	finderShift = 5
)

// Offsets into tables.Step and tables.Row, which begins with a Step, and
// their sizes.
const (
	stepHead  = 0
	stepDst   = 8
	stepSrc   = 10
	stepDisp  = 12
	stepImm   = 13
	stepLen   = 14
	stepShift = 4

	rowAdds  = 16
	rowMarks = 20 // the upper half of Adds
	rowFirst = 24
	rowMore  = 30
	rowShift = 5
)

// classBits is tables.ClassBits.
const classBits = 23

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	measure()
	emit()
	Generate()
}

// field is a field of the job.
func field(job Mem, offset int) Mem { return job.Offset(offset) }

// slot is instruction i.
func slot(insns, i reg.Register, offset int) Mem {
	return Mem{Base: insns, Index: i, Scale: 8, Disp: offset}
}

// peel copies the last instruction to the stack and an empty slot behind it,
// so that reading two slots stays inside. insns becomes the address that has
// the copy at index i.
func peel(copied Mem, insns, i, t reg.GPVirtual) {
	Comment("The last one is read from a copy, with an empty slot behind it.")
	MOVQ(slot(insns, i, 0), t)
	MOVQ(t, copied)
	MOVQ(I32(0), copied.Offset(8))
	LEAQ(copied, insns)
	MOVQ(i, t)
	SHLQ(U8(3), t)
	SUBQ(t, insns)
}

// lanes makes a constant of eight 16-bit words.
func lanes(name string, words [8]int16) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, w := range words {
		DATA(2*i, U16(uint16(w)))
	}
	return m
}

// The tests of an instruction's constants, eight at a time: a value is in the
// range lo to hi if value+bias > limit in signed words that wrap, where
// hi+bias is the largest word. The order is that of the class bits from
// tables.ClassImm8 on.
var ranges = [8]struct{ lo, hi int }{
	{-128, 127},  // Imm8
	{-32768, -1}, // ImmNeg: the words are saturated
	{0, 0},       // ImmZero
	{1, 1},       // ImmOne
	{0, 0},       // HighZero
	{-1, -1},     // HighOnes
	{-128, 127},  // Off8
	{0, 0},       // OffZero
}

func measure() {
	var bias, limit [8]int16
	for i, r := range ranges {
		bias[i] = int16(0x7fff - r.hi)
		limit[i] = int16(0x7fff - (r.hi - r.lo) - 1)
	}
	biases, limits := lanes("biases", bias), lanes("limits", limit)

	TEXT("measureAVO", NOSPLIT, "func(job *[12]uint64) (ok bool)")
	Pragma("noescape")
	Doc("measureAVO measures the instructions from job.next up to job.stop. It moves",
		"job.next on, and returns false at an instruction that has no row.")
	job := Mem{Base: Load(Param("job"), GP64())}
	insns, rows, pos, marks, table := GP64(), GP64(), GP64(), GP64(), GP64()
	finders, index, class := GP64(), GP64(), GP64()
	i, p := GP64(), GP64()
	f, c := GP64(), GP64()
	key, found := reg.RAX, reg.RDX // as MULQ wants them
	copied, end := AllocLocal(16), AllocLocal(8)
	two, imms, offs, bytes, bias8, limit8 := XMM(), XMM(), XMM(), XMM(), XMM(), XMM()

	Comment("end = min(stop, count-1)")
	MOVQ(field(job, jobStop), key)
	MOVQ(field(job, jobCount), found)
	DECQ(found)
	CMPQ(key, found)
	CMOVQGT(found, key)
	MOVQ(key, end)
	MOVQ(field(job, jobInsns), insns)
	MOVQ(field(job, jobRows), rows)
	MOVQ(field(job, jobOut), pos)
	MOVQ(field(job, jobNext), i)
	MOVQ(Mem{Base: pos, Index: i, Scale: 8}, p)
	Comment("Marks count from pos[0]: marks -= 4*first")
	MOVQ(field(job, jobMarks), marks)
	MOVQ(field(job, measureFirst), key)
	SHLQ(U8(2), key)
	SUBQ(key, marks)
	MOVQ(field(job, jobTable), table)
	MOVQ(field(job, measureFinders), finders)
	MOVQ(field(job, measureIndex), index)
	MOVQ(field(job, measureClass), class)
	MOVOU(biases, bias8)
	MOVOU(limits, limit8)
	CMPQ(i, end)
	JGE(LabelRef("out"))

	Label("loop")
	Comment("Eight words: imm four times, the next imm twice, off twice.")
	MOVOU(slot(insns, i, 0), two)
	PSHUFD(U8(0x55), two, imms)
	MOVO(two, offs)
	PSRAL(U8(16), offs)
	SHUFPS(U8(0x0f), offs, two)
	PACKSSLW(two, imms)
	Comment("c = bits 8 to 15 of the class")
	PADDW(bias8, imms)
	PCMPGTW(limit8, imms)
	PXOR(bytes, bytes)
	PACKSSWB(imms, bytes)
	PMOVMSKB(bytes, c.As32())
	Comment("key = slot<<ClassBits | RegClass[regs] | c")
	MOVBLZX(slot(insns, i, insnRegs), found.As32())
	ORL(Mem{Base: class, Index: found, Scale: 4}, c.As32())
	MOVQ(slot(insns, i, 0), key)
	SHLQ(U8(classBits), key)
	ORQ(c, key)
	Comment("c = RowIndex[Base + Last & upper half of (key&Mask)*Mul]")
	MOVBLZX(slot(insns, i, insnOp), f.As32())
	SHLL(U8(finderShift), f.As32())
	finder := func(offset int) Mem { return Mem{Base: finders, Index: f, Scale: 1, Disp: offset} }
	ANDQ(finder(finderMask), key)
	MULQ(finder(finderMul))
	ANDQ(finder(finderLast), found)
	ADDQ(finder(finderBase), found)
	MOVWLZX(Mem{Base: index, Index: found, Scale: 2}, c.As32())
	TESTL(c.As32(), c.As32())
	JZ(LabelRef("none"))
	Comment("rows[i] = c; p += Rows[c].Adds; pos[i+1] = p")
	MOVW(c.As16(), Mem{Base: rows, Index: i, Scale: 2})
	SHLL(U8(rowShift), c.As32())
	ADDQ(Mem{Base: table, Index: c, Scale: 1, Disp: rowAdds}, p)
	MOVQ(p, Mem{Base: pos, Index: i, Scale: 8, Disp: 8})
	INCQ(i)
	CMPQ(i, end)
	JLT(LabelRef("loop"))

	Label("out")
	job = Mem{Base: Load(Param("job"), GP64())}
	MOVQ(field(job, jobStop), c)
	CMPQ(i, c)
	JGE(LabelRef("all"))
	MOVQ(c, end)
	peel(copied, insns, i, f)
	JMP(LabelRef("loop"))

	ok, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	Label("none")
	MOVB(U8(0), ok.Addr)
	JMP(LabelRef("marks"))
	Label("all")
	MOVB(U8(1), ok.Addr)

	Comment("marks[pos[f].Marks()] = f for f from next to i: if f isn't a mark, the",
		"next one overwrites it. In a loop of its own: a store whose address is",
		"known late would hold up the loads above, and costs 40 % there.")
	Label("marks")
	job = Mem{Base: Load(Param("job"), GP64())}
	MOVQ(field(job, jobNext), f)
	MOVQ(i, field(job, jobNext))
	CMPQ(f, i)
	JGE(LabelRef("done"))
	Label("mark")
	MOVL(Mem{Base: pos, Index: f, Scale: 8, Disp: 4}, c.As32())
	MOVL(f.As32(), Mem{Base: marks, Index: c, Scale: 4})
	INCQ(f)
	CMPQ(f, i)
	JLT(LabelRef("mark"))
	Label("done")
	RET()
}

func emit() {
	TEXT("emitAVO", NOSPLIT, "func(job *[16]uint64) (wrong int)")
	Pragma("noescape")
	Doc("emitAVO writes the rows of the instructions from job.next up to job.stop. It",
		"moves next, at and mark of the job on, and returns 0, or what is wrong.")
	job := Mem{Base: Load(Param("job"), GP64())}
	insns, rows, ends, gap, gapEnd := GP64(), GP64(), GP64(), GP64(), GP64()
	bits, table, code := GP64(), GP64(), GP64()
	i, at := GP64(), GP64()
	s, head, t, d := GP64(), GP64(), GP64(), GP64()
	imm := XMM()
	copied, zeros := AllocLocal(16), AllocLocal(8)
	end, room, numRows, steps := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)
	row, last := AllocLocal(8), AllocLocal(8)
	wrong, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}

	for _, l := range []struct {
		from int
		to   Mem
	}{{emitRoom, room}, {emitNumRows, numRows}, {emitSteps, steps}} {
		MOVQ(field(job, l.from), t)
		MOVQ(t, l.to)
	}
	MOVQ(I32(0), zeros)
	Comment("end = min(stop, count-1)")
	MOVQ(field(job, jobStop), t)
	MOVQ(field(job, jobCount), d)
	DECQ(d)
	CMPQ(t, d)
	CMOVQGT(d, t)
	MOVQ(t, end)
	MOVQ(field(job, jobInsns), insns)
	MOVQ(field(job, jobRows), rows)
	MOVQ(field(job, jobOut), ends)
	MOVQ(field(job, jobMarks), gap)
	MOVQ(field(job, emitGaps), t)
	LEAQ(Mem{Base: gap, Index: t, Scale: 4}, gapEnd)
	MOVQ(field(job, emitMark), t)
	LEAQ(Mem{Base: gap, Index: t, Scale: 4}, gap)
	MOVQ(field(job, jobTable), table)
	MOVQ(field(job, emitBits), bits)
	MOVQ(field(job, emitCode), code)
	MOVQ(field(job, emitAt), at)
	MOVQ(field(job, jobNext), i)
	CMPQ(gap, gapEnd)
	JNE(LabelRef("start"))
	Comment("No gaps are left: read zeros instead.")
	LEAQ(zeros, gap)
	LEAQ(zeros.Offset(4), gapEnd)
	Label("start")
	CMPQ(i, end)
	JGE(LabelRef("out"))

	// step writes the step at s and moves at on.
	step := func() {
		field := func(offset int) Mem { return Mem{Base: s, Disp: offset} }
		Comment("head = Head ^ Bits[Dst+dst] ^ Bits[Src+src]")
		MOVBLZX(slot(insns, i, insnRegs), d.As32())
		MOVL(d.As32(), t.As32())
		ANDL(U8(15), d.As32())
		SHRL(U8(4), t.As32())
		MOVWLZX(field(stepDst), head.As32())
		ADDL(head.As32(), d.As32())
		MOVWLZX(field(stepSrc), head.As32())
		ADDL(head.As32(), t.As32())
		MOVQ(field(stepHead), head)
		XORQ(Mem{Base: bits, Index: d, Scale: 8}, head)
		XORQ(Mem{Base: bits, Index: t, Scale: 8}, head)
		Comment("if at+Len > room: too short; t = code+at; at += Len")
		LEAQ(Mem{Base: code, Index: at, Scale: 1}, t)
		MOVBLZX(field(stepLen), d.As32())
		ADDQ(d, at)
		CMPQ(at, room)
		JGT(LabelRef("short"))
		Comment("Three stores; each overwrites what was too much of the one before.")
		MOVQ(head, Mem{Base: t})
		MOVWLSX(slot(insns, i, insnOff), head.As32())
		MOVBLZX(field(stepDisp), d.As32())
		MOVL(head.As32(), Mem{Base: t, Index: d, Scale: 1})
		MOVOU(slot(insns, i, 0), imm)
		PSHUFD(U8(0x0d), imm, imm)
		MOVBLZX(field(stepImm), d.As32())
		MOVQ(imm, Mem{Base: t, Index: d, Scale: 1})
	}

	Label("loop")
	Comment("s = &Rows[rows[i]]")
	MOVWLZX(Mem{Base: rows, Index: i, Scale: 2}, s.As32())
	CMPQ(s, numRows)
	JAE(LabelRef("unknown"))
	SHLL(U8(rowShift), s.As32())
	ADDQ(table, s)
	CMPB(Mem{Base: s, Disp: rowMore}, U8(0))
	JNE(LabelRef("many"))
	step()

	Label("mark")
	Comment("at += *gap if the row is a mark, and gap moves on")
	MOVBLZX(Mem{Base: s, Disp: rowMarks}, t.As32())
	MOVL(Mem{Base: gap}, d.As32())
	IMULL(t.As32(), d.As32())
	LEAQ(Mem{Base: gap, Index: t, Scale: 4}, gap)
	ADDQ(d, at)
	CMPQ(gap, gapEnd)
	JEQ(LabelRef("spent"))
	Label("ended")
	MOVL(at.As32(), Mem{Base: ends, Index: i, Scale: 4})
	INCQ(i)
	CMPQ(i, end)
	JLT(LabelRef("loop"))

	Label("out")
	job = Mem{Base: Load(Param("job"), GP64())}
	MOVQ(field(job, jobStop), t)
	CMPQ(i, t)
	JGE(LabelRef("done"))
	MOVQ(t, end)
	peel(copied, insns, i, t)
	JMP(LabelRef("loop"))

	Label("many")
	Comment("The steps from Steps[First] to Steps[First+More]")
	MOVQ(s, row)
	MOVBLZX(Mem{Base: s, Disp: rowMore}, t.As32())
	MOVWLZX(Mem{Base: s, Disp: rowFirst}, s.As32())
	ADDL(s.As32(), t.As32())
	SHLL(U8(stepShift), s.As32())
	SHLL(U8(stepShift), t.As32())
	ADDQ(steps, s)
	ADDQ(steps, t)
	MOVQ(t, last)
	Label("next")
	step()
	CMPQ(s, last)
	LEAQ(Mem{Base: s, Disp: 1 << stepShift}, s)
	JNE(LabelRef("next"))
	MOVQ(row, s)
	JMP(LabelRef("mark"))

	Label("spent")
	Comment("The last gap is used. Zeros follow; a mark that uses them is one too many.")
	LEAQ(zeros.Offset(4), t)
	CMPQ(gapEnd, t)
	JEQ(LabelRef("gaps"))
	MOVQ(t, gapEnd)
	LEAQ(zeros, gap)
	JMP(LabelRef("ended"))

	Label("done")
	MOVQ(i, field(job, jobNext))
	MOVQ(at, field(job, emitAt))
	Comment("mark = len(gaps) if zeros are read, else gap - gaps")
	MOVQ(field(job, emitGaps), d)
	LEAQ(zeros, t)
	CMPQ(gap, t)
	JEQ(LabelRef("counted"))
	SUBQ(field(job, jobMarks), gap)
	SHRQ(U8(2), gap)
	MOVQ(gap, d)
	Label("counted")
	MOVQ(d, field(job, emitMark))
	MOVQ(I32(0), wrong.Addr)
	RET()

	for _, w := range []struct {
		label string
		value int32
	}{{"short", -1}, {"unknown", -2}, {"gaps", -3}} {
		Label(w.label)
		MOVQ(I32(w.value), wrong.Addr)
		RET()
	}
}
