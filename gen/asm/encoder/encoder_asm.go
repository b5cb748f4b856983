// Command encoder generates the assembly of package encoder: writing the draft
// of a program, and joining it.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into encoder.writeJob, encoder.Draft and encoder.Joint. A test pins them,
// and those below, to the structs.
const (
	writeInsns   = 0
	writeEnds    = 8
	writeRanks   = 16
	writeMarks   = 24
	writeFinder  = 32
	writeLookup  = 40
	writeScratch = 48
	writeRows    = 56
	writeSteps   = 64
	writeBits    = 72
	writeAt      = 80
	writeNext    = 88
	writeStop    = 96
	writeAll     = 104
	writeClass   = 112

	draftEnds  = 0
	draftMarks = 48
	draftCode  = 120

	joinDraft = 0
	joinCode  = 8
	joinGaps  = 32
	joinEnds  = 56
	joinAt    = 80
	joinMarks = 88
	joinSlot  = 96
)

// Offsets into abi.Insn.
const (
	insnRegs = 1
	insnOff  = 2
	insnImm  = 4
)

// Offsets into encoder.scratch, encoder.finder, encoder.lookup and
// encoder.quickRow.
const (
	scratchFields = 0
	scratchClass  = 2304
	scratchLast   = 2848

	finderMasks = 0
	finderBases = 2048
	finderClass = 3072

	lookupIndex = 65536
	lookupPairs = 98304

	quickHead  = 0
	quickPlace = 16
	quickMask  = 32
	quickValue = 40
	quickLen   = 48
	quickPair  = 56
	quickMark  = 60
)

// Offsets into tables.Step and tables.Row.
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
	rowFirst  = 40
	rowMore   = 45
)

// page is the size of a page in bytes. Fetching from behind the end of memory does
// nothing.
const page = 4096

// sliceLen is the offset of a slice's length; slack is encoder.Slack.
const (
	sliceLen = 8
	slack    = 264
)

// Offsets into encoder.Mark and encoder.Gap.
const (
	markSlot = 0
	markRow  = 4
	markSize = 8
	gapLen   = 48 // where the length stands
)

// What joining copies of a piece at once, the size of a vector in bytes, and how many
// bytes ahead joining fetches memory that no cache has.
const (
	pieceBytes = 128
	pieceSlots = 24
	vector     = 32
	ahead      = 2048
)

// Numbers of tables and abi.
const (
	classBits     = 23
	firstProperty = 0x100 // class bit of the first property
	opLdImm64     = 0x18
	opJa          = 0x05
	batch         = 16
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	write()
	join("joinAVO", false)
	join("joinFarAVO", true)
	Generate()
}

// result is where the function's boolean result is.
func result() Mem { return resolve(ReturnIndex(0)) }

// parameter is where a parameter of the function is.
func parameter(name string) Mem { return resolve(Param(name)) }

func resolve(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func write() {
	TEXT("writeAVO", NOSPLIT, "func(job *[15]uint64) (ok bool)")
	align.Line()
	Pragma("noescape")
	Doc("writeAVO finds the classes of the slots from job.next up to job.stop and writes",
		"their steps. It moves next, at, marks and class of the job on, and returns false at a slot",
		"that has no row or isn't well-formed.")
	ok, all := result(), GP64()
	Load(Param("job"), all)
	classify(all)
	insns, ends, ranks, marks := GP64(), GP64(), GP64(), GP64()
	finder, lookup, at := GP64(), GP64(), GP64()
	i, class, classes, fields := GP64(), GP64(), GP64(), GP64()
	// The second byte of a register is only in these, and read into these.
	key, regs, op, row := reg.RAX, reg.RBX, reg.RCX, reg.RDX
	code, bits := XMM(), XMM()
	stop, rows, steps, contributions := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)
	kept, next, last, second := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)

	job := Mem{Base: key}
	Load(Param("job"), key)
	state := []struct {
		at int
		r  reg.GPVirtual
	}{
		{writeInsns, insns}, {writeEnds, ends}, {writeRanks, ranks}, {writeFinder, finder}, {writeLookup, lookup},
		{writeMarks, marks}, {writeAt, at}, {writeNext, i}, {writeClass, class},
	}
	for _, l := range state {
		MOVQ(job.Offset(l.at), l.r)
	}
	for _, l := range []struct {
		from int
		to   Mem
	}{{writeStop, stop}, {writeRows, rows}, {writeSteps, steps}, {writeBits, contributions}} {
		MOVQ(job.Offset(l.from), row)
		MOVQ(row, l.to)
	}
	Comment("Slot i is element i-next of the scratch.")
	MOVQ(job.Offset(writeScratch), fields)
	LEAQ(Mem{Base: fields, Disp: scratchClass}, classes)
	MOVQ(i, row)
	SHLQ(U8(1), row)
	SUBQ(row, classes)
	SHLQ(U8(2), row)
	SUBQ(row, fields)

	quick := func(disp int) Mem { return Mem{Base: lookup, Index: row, Scale: 1, Disp: disp} }
	inRow := func(disp int) Mem { return Mem{Base: row, Disp: disp} }

	// slotAt writes slot i+n. Labels of the two n have different names.
	label := func(name string, n int) string { return fmt.Sprint(name, n) }
	slotAt := func(n int) {
		slot := Mem{Base: insns, Index: i, Scale: 8, Disp: 8 * n}
		Comment(fmt.Sprintf("row = class of slot i+%d", n))
		MOVQ(slot, key)
		MOVBLZX(reg.AL, op.As32())
		MOVBLZX(reg.AH, regs.As32())
		MOVWLZX(Mem{Base: classes, Index: i, Scale: 2, Disp: 2 * n}, row.As32())
		ORL(Mem{Base: finder, Index: regs, Scale: 4, Disp: finderClass}, row.As32())
		ORL(row.As32(), class.As32())
		Comment("key = slot<<classBits | class; row = index[Bases[op] + PEXT(key, Masks[op])]")
		SHLQ(U8(classBits), key)
		ORQ(row, key)
		PEXTQ(Mem{Base: finder, Index: op, Scale: 8, Disp: finderMasks}, key, row)
		ADDL(Mem{Base: finder, Index: op, Scale: 4, Disp: finderBases}, row.As32())
		MOVL(Mem{Base: lookup, Index: row, Scale: 4, Disp: lookupIndex}, row.As32())
		Comment("Is the slot what the row is for, and is the row a single step?")
		ANDQ(quick(quickMask), key)
		CMPQ(key, quick(quickValue))
		JNE(LabelRef(label("rare", n)))
		Comment("code = fields at their places ^ Head ^ pairs[Pair + regs]")
		ADDL(quick(quickPair), regs.As32())
		VMOVDQU(Mem{Base: fields, Index: i, Scale: 8, Disp: 8 * n}, code)
		VPSHUFB(quick(quickPlace), code, code)
		VPXOR(quick(quickHead), code, code)
		VMOVQ(Mem{Base: lookup, Index: regs, Scale: 8, Disp: lookupPairs}, bits)
		VPXOR(bits, code, code)
		Comment("The next step overwrites what is too much.")
		VMOVDQU(code, Mem{Base: at})
		ADDQ(quick(quickLen), at)

		Label(label("written", n))
		Comment(fmt.Sprintf("ends[i+%d] = at; *marks = {slot, row}, kept if it is a mark; ranks[i+%[1]d] = marks", n+1))
		MOVL(at.As32(), Mem{Base: ends, Index: i, Scale: 4, Disp: 4 * (n + 1)})
		if n == 0 {
			MOVL(i.As32(), Mem{Base: marks, Disp: markSlot})
		} else {
			LEAL(Mem{Base: i, Disp: n}, op.As32())
			MOVL(op.As32(), Mem{Base: marks, Disp: markSlot})
		}
		MOVL(row.As32(), Mem{Base: marks, Disp: markRow})
		MOVL(quick(quickMark), row.As32())
		ADDQ(row, marks)
		MOVL(marks.As32(), Mem{Base: ranks, Index: i, Scale: 4, Disp: 4 * (n + 1)})
	}
	// rare writes slot i if slotAt can't.
	rare := func() {
		slot := func(disp int) Mem { return Mem{Base: insns, Index: i, Scale: 8, Disp: disp} }
		Comment("Everything again, with the row that has it all.")
		MOVQ(row, kept)
		ADDQ(rows, row)
		MOVBLZX(slot(insnRegs), regs.As32())
		MOVL(Mem{Base: finder, Index: regs, Scale: 4, Disp: finderClass}, key.As32())
		TESTL(key.As32(), inRow(rowRefuse))
		JNZ(LabelRef("bad"))
		MOVQ(inRow(rowMask), key)
		ANDQ(slot(0), key)
		CMPQ(key, inRow(rowValue))
		JNE(LabelRef("bad"))
		Comment("The row is the first step, the others are behind Steps[First]. next and last",
			"say which.")
		MOVBLZX(inRow(rowMore), key.As32())
		MOVWLZX(inRow(rowFirst), op.As32())
		ADDL(op.As32(), key.As32())
		SHLL(U8(4), key.As32())
		SHLL(U8(4), op.As32())
		ADDQ(steps, key)
		ADDQ(steps, op)
		MOVQ(key, last)
		MOVQ(op, next)
		Label("step")
		Comment("head = Head ^ Bits[Src+src] ^ Bits[Dst+dst]")
		MOVBLZX(slot(insnRegs), key.As32())
		MOVL(key.As32(), op.As32())
		SHRL(U8(4), key.As32())
		ANDL(U8(15), op.As32())
		ADDW(inRow(stepSrc), key.As16())
		ADDW(inRow(stepDst), op.As16())
		MOVQ(contributions, regs)
		MOVQ(Mem{Base: regs, Index: key, Scale: 8}, key)
		XORQ(Mem{Base: regs, Index: op, Scale: 8}, key)
		XORQ(inRow(stepHead), key)
		Comment("Three stores; each overwrites what was too much of the one before.")
		MOVQ(key, Mem{Base: at})
		MOVWLSX(slot(insnOff), op.As32())
		MOVBLZX(inRow(stepDisp), key.As32())
		MOVL(op.As32(), Mem{Base: at, Index: key, Scale: 1})
		VPSHUFD(U8(0x0d), Mem{Base: fields, Index: i, Scale: 8}, code)
		MOVBLZX(inRow(stepImm), key.As32())
		VMOVQ(code, Mem{Base: at, Index: key, Scale: 1})
		MOVBLZX(inRow(stepLen), key.As32())
		ADDQ(key, at)
		MOVQ(next, row)
		ADDQ(U8(stepSize), row)
		MOVQ(row, next)
		CMPQ(row, last)
		JLE(LabelRef("step"))
		MOVQ(kept, row)
	}

	Comment("Two slots at a time; of an odd number the first is the second of two.")
	MOVQ(stop, key)
	SUBQ(i, key)
	TESTB(U8(1), reg.AL)
	JZ(LabelRef("slot0"))
	DECQ(i)
	JMP(LabelRef("slot1"))
	Label("slot0")
	slotAt(0)
	Label("slot1")
	slotAt(1)
	ADDQ(U8(2), i)
	CMPQ(i, stop)
	JLT(LabelRef("slot0"))

	VZEROUPPER()
	Load(Param("job"), key)
	for _, l := range state[5:] {
		MOVQ(l.r, job.Offset(l.at))
	}
	MOVB(U8(1), ok)
	RET()

	Comment("The second slot of two is written as if it were the first.")
	Label("rare1")
	INCQ(i)
	MOVQ(U32(1), second)
	JMP(LabelRef("rare"))
	Label("rare0")
	MOVQ(U32(0), second)
	Label("rare")
	rare()
	CMPQ(second, U8(0))
	JEQ(LabelRef("written0"))
	DECQ(i)
	JMP(LabelRef("written1"))

	Label("bad")
	VZEROUPPER()
	MOVB(U8(0), ok)
	RET()
}

// join makes a function that joins. If far, it is for lists that no cache has.
func join(name string, far bool) {
	TEXT(name, NOSPLIT, "func(joint *[13]uint64, stop int) (ok bool)")
	align.Line()
	Pragma("noescape")
	if far {
		Doc(name + " does the same for lists that no cache has.")
	} else {
		Doc(name+" copies the draft of a Joint up to each of the marks from joint.Marks up",
			"to stop, and its gap behind it. It returns false if there is no room for it.")
	}
	ok, stop := result(), parameter("stop")
	from, ends, marks, gaps, to, out := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k, slot, end, shift := GP64(), GP64(), GP64(), GP64()
	n, m, t := GP64(), GP64(), GP64()
	limit := AllocLocal(8)
	s := YMM()

	joint, draft := Mem{Base: t}, Mem{Base: m}
	Load(Param("joint"), t)
	MOVQ(joint.Offset(joinDraft), m)
	MOVQ(draft.Offset(draftEnds), ends)
	MOVQ(draft.Offset(draftMarks), marks)
	MOVQ(draft.Offset(draftCode), from)
	MOVQ(joint.Offset(joinGaps), gaps)
	MOVQ(joint.Offset(joinEnds), out)
	MOVQ(joint.Offset(joinMarks), k)
	MOVQ(joint.Offset(joinSlot), slot)
	Comment("limit = the last place where code may end; to = where it goes on")
	MOVQ(joint.Offset(joinCode), to)
	MOVQ(joint.Offset(joinCode+sliceLen), n)
	LEAQ(Mem{Base: to, Index: n, Scale: 1, Disp: -slack}, n)
	MOVQ(n, limit)
	MOVQ(joint.Offset(joinAt), shift)
	ADDQ(shift, to)
	Comment("end = end of the draft before the slot; from = that place in it; shift = from ends",
		"of the draft to those of the code")
	MOVL(Mem{Base: ends, Index: slot, Scale: 4}, end.As32())
	MOVL(end.As32(), n.As32())
	SUBL(Mem{Base: ends}, n.As32())
	ADDQ(n, from)
	SUBL(end.As32(), shift.As32())

	Label("mark")
	Comment("m = slot of the mark; n = bytes up to the end of its steps")
	MOVL(Mem{Base: marks, Index: k, Scale: 8, Disp: markSlot}, m.As32())
	MOVL(Mem{Base: ends, Index: m, Scale: 4, Disp: 4}, n.As32())
	SUBL(end.As32(), n.As32())
	ADDL(n.As32(), end.As32())
	LEAQ(Mem{Base: to, Index: n, Scale: 1}, t)
	CMPQ(t, limit)
	JA(LabelRef("full"))
	Comment("Copy what nearly all pieces have: how long one is can't be foreseen. The next",
		"piece overwrites what is too much.")
	copyBytes(from, to, nil, 0, pieceBytes)
	Comment("out[slot to m] = ends + shift, as many as nearly all pieces have")
	VMOVD(shift.As32(), s.AsX())
	VPBROADCASTD(s.AsX(), s)
	moveEnds(ends, out, slot, s, 0, pieceSlots)
	Comment("t = slots of the piece, less one")
	MOVQ(m, t)
	SUBQ(slot, t)
	CMPQ(n, U32(pieceBytes))
	JA(LabelRef("long"))
	CMPQ(t, U8(pieceSlots))
	JAE(LabelRef("long"))
	Label("joined")
	ADDQ(n, from)
	ADDQ(n, to)
	LEAQ(Mem{Base: m, Disp: 1}, slot)

	if far {
		Comment("The processor's own prefetching ends where a page does, and each of the six lists comes",
			"to ends of pages. What is read isn't needed again.")
		for _, read := range []Mem{
			{Base: marks, Index: k, Scale: 8}, {Base: gaps, Index: k, Scale: 8}, {Base: ends, Index: m, Scale: 4}, {Base: from},
		} {
			PREFETCHNTA(read.Offset(ahead))
		}
		PREFETCHT0(Mem{Base: out, Index: m, Scale: 4, Disp: ahead})
		PREFETCHT0(Mem{Base: to, Disp: ahead})
	}
	Comment("The gap")
	MOVQ(Mem{Base: gaps, Index: k, Scale: 8}, t)
	MOVQ(t, Mem{Base: to})
	SHRQ(U8(gapLen), t)
	ADDQ(t, to)
	ADDL(t.As32(), shift.As32())
	ADDL(t.As32(), Mem{Base: out, Index: m, Scale: 4})
	INCQ(k)
	CMPQ(k, stop)
	JLT(LabelRef("mark"))
	CMPQ(to, limit)
	JA(LabelRef("full"))

	VZEROUPPER()
	Load(Param("joint"), t)
	SUBQ(joint.Offset(joinCode), to)
	MOVQ(k, joint.Offset(joinMarks))
	MOVQ(to, joint.Offset(joinAt))
	MOVQ(slot, joint.Offset(joinSlot))
	MOVB(U8(1), ok)
	RET()

	Label("full")
	VZEROUPPER()
	MOVB(U8(0), ok)
	RET()

	Label("long")
	Comment("As much again, which is what nearly all long pieces have")
	copyBytes(from, to, nil, pieceBytes, pieceBytes)
	moveEnds(ends, out, slot, s, pieceSlots, pieceSlots)
	CMPQ(n, U32(2*pieceBytes))
	JA(LabelRef("longer"))
	CMPQ(t, U8(2*pieceSlots))
	JB(LabelRef("joined"))
	Label("longer")
	Comment("The rest")
	MOVL(U32(2*pieceBytes), t.As32())
	JMP(LabelRef("bytes"))
	Label("morebytes")
	copyBytes(from, to, t, 0, vector)
	ADDQ(U8(vector), t)
	Label("bytes")
	CMPQ(t, n)
	JLT(LabelRef("morebytes"))
	ADDQ(U8(2*pieceSlots), slot)
	JMP(LabelRef("ends"))
	Label("moreends")
	moveEnds(ends, out, slot, s, 0, vector/4)
	ADDQ(U8(vector/4), slot)
	Label("ends")
	CMPQ(slot, m)
	JLE(LabelRef("moreends"))
	JMP(LabelRef("joined"))
}

// copyBytes copies n bytes from the first on, behind the index i if there is one.
func copyBytes(from, to, i reg.Register, first, n int) {
	place := func(base reg.Register, at int) Mem {
		m := Mem{Base: base, Disp: at}
		if i != nil {
			m.Index, m.Scale = i, 1
		}
		return m
	}
	for at := first; at < first+n; at += vector {
		v := YMM()
		VMOVDQU(place(from, at), v)
		VMOVDQU(v, place(to, at))
	}
}

// moveEnds makes the ends of n slots those in the code, from the first behind slot on.
func moveEnds(ends, out, slot, shift reg.Register, first, n int) {
	for at := 4 * first; at < 4*(first+n); at += vector {
		v := YMM()
		VPADDD(Mem{Base: ends, Index: slot, Scale: 4, Disp: 4 + at}, shift, v)
		VMOVDQU(v, Mem{Base: out, Index: slot, Scale: 4, Disp: at})
	}
}
