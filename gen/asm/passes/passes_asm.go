// Command passes generates the assembly of package jit: the passes that size
// jumps. Nothing in it branches on a program's data but where that is rare.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into jit.passJob. A test pins them, and those below, to the structs.
const (
	jobMarks     = 0
	jobRows      = 8
	jobInsns     = 16
	jobEnds      = 24
	jobRanks     = 32
	jobJumps     = 40
	jobSums      = 48
	jobGaps      = 56
	jobNext      = 64
	jobCount     = 72
	jobSlots     = 80
	jobStop      = 88
	jobOthers    = 96
	jobNoted     = 104
	jobCharges   = 112
	jobCharged   = 120
	jobLengths   = 128
	jobMost      = 136
	jobRounds    = 144
	jobStart     = 152 // from here on fields have 32 bits
	jobReach     = 156
	jobFirstRank = 160
	jobSum       = 164
	jobShaped    = 168
	jobExit      = 172
	jobExits     = 176
	jobFirstExit = 180
	jobExitOp    = 184
)

// Offsets into jit.jump, whose size is 1<<jumpShift.
const (
	jumpDist   = 0
	jumpRank   = 4
	jumpVanish = 8
	jumpSize   = 12
	jumpOp     = 13
	jumpShift  = 4
)

// Offsets into jit.charge.
const (
	chargeMark = 0
	chargeN    = 4
	chargeSize = 8
)

// Offsets into encoder.Mark, encoder.Gap, tables.Row and abi.Insn.
const (
	markSlot = 0
	markRow  = 4
	gapLen   = 48 // where the length stands
	rowKind  = 39
	rowShort = 43
	insnOp   = 0
	insnRegs = 1
	insnOff  = 2
	insnImm  = 4
)

// Offsets into shapes, whose size is 1<<shapeShift.
const (
	shapeSize   = 0  // and op above it; a jump's is its row's
	shapeVanish = 4  // as in jit.jump
	shapeJumps  = 8  // all bits, if the slot's off is a distance
	shapeAway   = 12 // far, if it doesn't lead anywhere
	shapeNoted  = 16 // 1, if it belongs to the others
	shapeShift  = 5
)

// Numbers of tables, encoder and jit.
const (
	kindJcc       = 2
	kindCharge    = 6
	opExit        = 0x95
	callSize      = 5
	callOp        = 0xea
	farAway       = 0x40000000
	isPlain       = 0x80000000
	plainShift    = 28
	markShift     = 3 // of encoder.MarkSize
	estimateShift = 6 // of the estimate
	shortJump     = 2
	longJa        = 5
	longJcc       = 6
	shortBack     = 128 // how far back short jumps go
	partMarks     = 4096
	layOutMarks   = 2048
	group         = 8 // jumps that are written at once
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	layOut()
	pass()
	passes()
	lastPass()
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

// part makes stop the end of the part of so many marks from mark k on, at most count.
func part(stop, k reg.GPVirtual, marks int, count Mem) {
	Comment(fmt.Sprintf("stop = min(k+%d, count)", marks))
	LEAQ(Mem{Base: k, Disp: marks}, stop)
	CMPQ(stop, count)
	CMOVQGT(count, stop)
}

// load reads fields of the job.
func load(job reg.Register, fields map[int]reg.GPVirtual) {
	for at := 0; at <= jobExitOp; at += 4 {
		if r, ok := fields[at]; ok && at < jobStart {
			MOVQ(Mem{Base: job, Disp: at}, r)
		} else if ok {
			MOVL(Mem{Base: job, Disp: at}, r.As32())
		}
	}
}

// constants are numbers that CMOV needs in memory.
func constants() (two, zero Mem) {
	two = GLOBL("two", RODATA|NOPTR)
	DATA(0, U32(shortJump))
	zero = GLOBL("zero", RODATA|NOPTR)
	DATA(0, U32(0))
	return two, zero
}

var two, zero Mem

// length leaves in size how long a jump of a distance is; t is lost.
func length(size, d, t reg.GPVirtual, vanish, reach Mem) {
	LEAL(Mem{Base: d, Disp: shortBack}, t.As32())
	CMPL(t.As32(), reach)
	CMOVLLS(two, size.As32())
	CMPL(d.As32(), vanish)
	CMOVLEQ(zero, size.As32())
}

// shapes makes what jumps have by their kind, from Jcc on: which it is can't be foreseen,
// so there is no branch on it.
func shapes() Mem {
	const all = 0xffffffff
	m := GLOBL("shapes", RODATA|NOPTR)
	for i, shape := range []map[int]uint32{
		{shapeSize: longJcc, shapeVanish: farAway, shapeJumps: all},
		{shapeSize: longJa, shapeJumps: all},
		{shapeSize: callSize | callOp<<8, shapeAway: farAway, shapeNoted: 1},
	} {
		for at := 0; at < 1<<shapeShift; at += 4 {
			DATA(i<<shapeShift+at, U32(shape[at]))
		}
	}
	return m
}

// page is the size of a page in bytes. Fetching from behind the end of memory does
// nothing.
const page = 4096

func layOut() {
	two, zero = constants()
	TEXT("layOutAVO", NOSPLIT, "func(job *uint64) (more bool)")
	align.Line()
	Pragma("noescape")
	Doc("layOutAVO lays out the marks from job.next on, and runs pass 0 on them. It stops",
		"at the first that isn't a jump by off, nor of a fixed length that the job has, or",
		"is a jump to nowhere, to what has no draft yet, or to itself, or a call in front of",
		"what has none. It returns whether it stopped at the end of a part, with more marks",
		"behind.")
	more, job := result(), GP64()
	Load(Param("job"), job)
	field := func(at int) Mem { return Mem{Base: job, Disp: at} }
	marks, insns, ends, sums, j, k, sum := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{
		jobMarks: marks, jobInsns: insns, jobEnds: ends, jobJumps: j, jobSums: sums, jobNext: k, jobSum: sum,
	})
	Comment("j = jumps[k]")
	t := GP64()
	MOVQ(k, t)
	SHLQ(U8(jumpShift), t)
	ADDQ(t, j)
	part(t, k, layOutMarks, field(jobCount))
	MOVQ(t, field(jobStop))
	CMPQ(k, t)
	JGE(LabelRef("end"))

	Label("loop")
	Comment("sums[k] = sum; the kind of the mark's row must be one that has a shape")
	slot, row, to, target, size, d, kind := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	MOVL(sum.As32(), Mem{Base: sums, Index: k, Scale: 4})
	MOVL(Mem{Base: marks, Index: k, Scale: 8, Disp: markRow}, row.As32())
	ADDQ(field(jobRows), row)
	MOVBLZX(Mem{Base: row, Disp: rowKind}, kind.As32())
	SUBL(U8(kindJcc), kind.As32())
	MOVL(Mem{Base: marks, Index: k, Scale: 8, Disp: markSlot}, slot.As32())
	inSlot := func(disp int) Mem { return Mem{Base: insns, Index: slot, Scale: 8, Disp: disp} }
	CMPL(kind.As32(), field(jobShaped))
	JAE(LabelRef("fixed"))
	Comment("to = slot+1+off must be the first slot of an instruction. A call goes on behind it.")
	SHLL(U8(shapeShift), kind.As32())
	LEAQ(shapes(), size)
	ADDQ(size, kind)
	shape := func(at int) Mem { return Mem{Base: kind, Disp: at} }
	MOVWLSX(inSlot(insnOff), d.As32())
	ANDL(shape(shapeJumps), d.As32())
	LEAL(Mem{Base: slot, Index: d, Scale: 1, Disp: 1}, to.As32())
	CMPL(to.As32(), field(jobSlots))
	JAE(LabelRef("out"))
	CMPB(Mem{Base: insns, Index: to, Scale: 8, Disp: insnOp}, U8(0))
	JEQ(LabelRef("out"))
	CMPL(to.As32(), slot.As32())
	JEQ(LabelRef("out"))
	Comment("The slot goes to the others, with src above it, and stays if this is a call.")
	call, list := row, target
	MOVBLZX(Mem{Base: row, Disp: rowShort}, size.As32())
	MOVBLZX(inSlot(insnRegs), call.As32())
	SHRL(U8(4), call.As32())
	ORL(U8(isPlain>>plainShift), call.As32())
	SHLL(U8(plainShift), call.As32())
	ORL(slot.As32(), call.As32())
	MOVQ(field(jobNoted), list)
	SHLQ(U8(2), list)
	ADDQ(field(jobOthers), list)
	MOVL(call.As32(), Mem{Base: list})
	MOVL(shape(shapeNoted), call.As32())
	ADDQ(call, field(jobNoted))
	Comment("*j = {dist, rank, vanish, size, op}")
	SHLL(U8(8), size.As32())
	ORL(shape(shapeSize), size.As32())
	MOVL(size.As32(), Mem{Base: j, Disp: jumpSize})
	MOVBLZX(size.As8(), size.As32())
	MOVL(shape(shapeVanish), target.As32())
	MOVL(target.As32(), Mem{Base: j, Disp: jumpVanish})
	MOVL(Mem{Base: ends, Index: to, Scale: 4}, target.As32())
	MOVQ(field(jobRanks), row)
	MOVL(Mem{Base: row, Index: to, Scale: 4}, row.As32())
	MOVL(target.As32(), to.As32())
	SUBL(field(jobFirstRank), row.As32())
	SHRL(U8(markShift), row.As32())
	MOVL(row.As32(), Mem{Base: j, Disp: jumpRank})
	SUBL(Mem{Base: ends, Index: slot, Scale: 4, Disp: 4}, to.As32())
	ORL(shape(shapeAway), to.As32())
	MOVL(to.As32(), Mem{Base: j, Disp: jumpDist})
	Comment("d = 64*off ahead, and back start + target + sums[rank] - 64*(slot+2)")
	ADDL(Mem{Base: sums, Index: row, Scale: 4}, target.As32())
	ADDL(field(jobStart), target.As32())
	ADDL(U8(2), slot.As32())
	SHLL(U8(estimateShift), slot.As32())
	SUBL(slot.As32(), target.As32())
	SHLL(U8(estimateShift), d.As32())
	ORL(shape(shapeAway), d.As32())
	CMOVLMI(target.As32(), d.As32())
	length(size, d, row, Mem{Base: j, Disp: jumpVanish}, field(jobReach))
	ADDL(size.As32(), sum.As32())
	Label("next")
	Comment("A page ahead: the processor's own prefetching ends where a page does.")
	PREFETCHT0(Mem{Base: j, Disp: page})
	ADDQ(U8(1<<jumpShift), j)
	INCQ(k)
	CMPQ(k, field(jobStop))
	JLT(LabelRef("loop"))
	Label("end")
	CMPQ(k, field(jobCount))
	SETLT(more)
	Label("stop")
	MOVQ(k, field(jobNext))
	MOVL(sum.As32(), field(jobSum))
	RET()

	Label("fixed")
	Comment("A charge, or an EXIT whose length is known")
	number, list := to, row
	n := slot
	CMPL(kind.As32(), U8(kindCharge-kindJcc))
	JEQ(LabelRef("charge"))
	CMPB(inSlot(insnOp), U8(opExit))
	JNE(LabelRef("out"))
	MOVL(field(jobExit), size.As32())
	TESTL(size.As32(), size.As32())
	JZ(LabelRef("out"))
	MOVL(slot.As32(), field(jobFirstExit))
	MOVL(field(jobExits), number.As32())
	MOVL(number.As32(), field(jobExit))
	MOVL(field(jobExitOp), number.As32())
	SHLL(U8(8), number.As32())
	JNZ(LabelRef("sized"))
	Comment("one of the others")
	MOVQ(field(jobOthers), list)
	MOVQ(field(jobNoted), n)
	MOVL(k.As32(), Mem{Base: list, Index: n, Scale: 4})
	INCQ(field(jobNoted))
	Label("called")
	MOVL(U32(callOp<<8), number.As32())
	Label("sized")
	Comment("*j = {far away, its own end, 0, size, opcode}")
	ADDL(size.As32(), sum.As32())
	ORL(number.As32(), size.As32())
	MOVL(size.As32(), Mem{Base: j, Disp: jumpSize})
	MOVL(U32(farAway), Mem{Base: j, Disp: jumpDist})
	LEAL(Mem{Base: k, Disp: 1}, to.As32())
	MOVL(to.As32(), Mem{Base: j, Disp: jumpRank})
	MOVL(U32(0), Mem{Base: j, Disp: jumpVanish})
	JMP(LabelRef("next"))
	Label("charge")
	MOVL(inSlot(insnImm), number.As32())
	MOVQ(field(jobCharges), list)
	MOVQ(field(jobCharged), n)
	MOVL(k.As32(), Mem{Base: list, Index: n, Scale: chargeSize, Disp: chargeMark})
	MOVL(number.As32(), Mem{Base: list, Index: n, Scale: chargeSize, Disp: chargeN})
	INCQ(field(jobCharged))
	MOVL(U32(longJcc), size.As32())
	JMP(LabelRef("called"))

	Label("out")
	MOVB(U8(0), more)
	JMP(LabelRef("stop"))
}

func pass() {
	TEXT("passAVO", NOSPLIT, "func(job *uint64) (more bool)")
	align.Line()
	Pragma("noescape")
	Doc("passAVO sizes the jumps from job.next up to the end of a part once. job.sum is the",
		"sum of those before. It returns whether there are more behind.")
	more, job := result(), GP64()
	Load(Param("job"), job)
	sums, jumps, k, n, sum := GP64(), GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{jobJumps: jumps, jobSums: sums, jobNext: k, jobSum: sum})
	part(n, k, partMarks, Mem{Base: job, Disp: jobCount})
	MOVQ(n, Mem{Base: job, Disp: jobNext})
	CMPQ(n, Mem{Base: job, Disp: jobCount})
	SETLT(more)
	CMPQ(k, n)
	JGE(LabelRef("none"))
	Comment("k and n count twice. Two jumps at a time; of an odd number the first is the second",
		"of two.")
	ADDQ(n, n)
	ADDQ(k, k)
	odd := GP64()
	MOVQ(n, odd)
	SUBQ(k, odd)
	TESTB(U8(2), odd.As8())
	JZ(LabelRef("first"))
	SUBQ(U8(2), k)
	JMP(LabelRef("second"))
	Label("first")
	sizeJump(job, jumps, sums, k, sum, 0)
	Label("second")
	sizeJump(job, jumps, sums, k, sum, 1)
	ADDQ(U8(4), k)
	CMPQ(k, n)
	JLT(LabelRef("first"))
	MOVL(sum.As32(), Mem{Base: sums, Index: k, Scale: 2})
	MOVL(sum.As32(), Mem{Base: job, Disp: jobSum})
	RET()
	Label("none")
	MOVL(sum.As32(), Mem{Base: sums, Index: k, Scale: 4})
	RET()
}

func passes() {
	TEXT("passesAVO", NOSPLIT, "func(job *uint64) (ok bool)")
	align.Line()
	Pragma("noescape")
	Doc("passesAVO runs passes over all jumps, of which there is one at least, until the",
		"length of the code is what the pass before left, and then the last one, which writes",
		"them into the gaps. It writes job.lengths, and leaves in job.rounds how many passes",
		"ran before the last one. It returns false if there would be more than job.most, at",
		"least one, or the last one finds other addresses.")
	ok, job := result(), GP64()
	Load(Param("job"), job)
	sums, jumps, k, n, sum, round, lengths := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{jobJumps: jumps, jobSums: sums, jobCount: n, jobLengths: lengths})
	w := newWriter(job, jumps, sums, n)
	w.pad()
	Comment("steps = start + ends[slots], the length without marks; lengths[0] = steps + sums[n], which",
		"pass 0 left")
	steps, t := AllocLocal(8), GP64()
	MOVQ(Mem{Base: job, Disp: jobEnds}, round)
	MOVQ(Mem{Base: job, Disp: jobSlots}, t)
	MOVL(Mem{Base: round, Index: t, Scale: 4}, t.As32())
	ADDL(Mem{Base: job, Disp: jobStart}, t.As32())
	MOVQ(t, steps)
	XORL(round.As32(), round.As32())
	MOVL(Mem{Base: sums, Index: n, Scale: 4}, sum.As32())
	ADDQ(t, sum)
	MOVQ(sum, Mem{Base: lengths})

	Label("pass")
	Comment("k and n count twice.")
	ADDQ(n, n)
	XORL(k.As32(), k.As32())
	XORL(sum.As32(), sum.As32())
	Comment("Two jumps at a time. Of an odd number the last is followed by what isn't one: it makes",
		"nothing of sums[n] but what is behind it.")
	Label("jump")
	sizeJump(job, jumps, sums, k, sum, 0)
	sizeJump(job, jumps, sums, k, sum, 1)
	ADDQ(U8(4), k)
	CMPQ(k, n)
	JLT(LabelRef("jump"))
	MOVL(sum.As32(), Mem{Base: sums, Index: k, Scale: 2})
	SHRQ(U8(1), n)
	Comment("lengths[round+1] = steps + sums[n]")
	MOVL(Mem{Base: sums, Index: n, Scale: 4}, sum.As32())
	ADDQ(steps, sum)
	INCQ(round)
	MOVQ(sum, Mem{Base: lengths, Index: round, Scale: 8})

	Comment("A pass that finds all as it is leaves it so, and is the last one, or the last but one,",
		"which leaves nothing to do for the last one.")
	XORL(k.As32(), k.As32())
	w.begin(k)
	Label("write")
	w.write()
	JNE(LabelRef("differs"))
	w.next()
	JLT(LabelRef("write"))
	VZEROUPPER()
	MOVQ(sum, Mem{Base: lengths, Index: round, Scale: 8, Disp: 8})
	MOVQ(sum, Mem{Base: lengths, Index: round, Scale: 8, Disp: 16})
	CMPQ(sum, Mem{Base: lengths, Index: round, Scale: 8, Disp: -8})
	JEQ(LabelRef("last"))
	CMPQ(round, Mem{Base: job, Disp: jobMost})
	JGE(LabelRef("no"))
	INCQ(round)
	Label("last")
	MOVQ(round, Mem{Base: job, Disp: jobRounds})
	MOVB(U8(1), ok)
	RET()

	Label("differs")
	CMPQ(sum, Mem{Base: lengths, Index: round, Scale: 8, Disp: -8})
	JEQ(LabelRef("out"))
	CMPQ(round, Mem{Base: job, Disp: jobMost})
	JLT(LabelRef("pass"))
	Label("out")
	VZEROUPPER()
	Label("no")
	MOVQ(round, Mem{Base: job, Disp: jobRounds})
	MOVB(U8(0), ok)
	RET()
}

// sizeJump sizes the jump that comes so many behind k.
func sizeJump(job reg.Register, jumps, sums, k, sum reg.GPVirtual, behind int) {
	Comment("before = sums[k+1]; sums[k] = sum; d = dist + sums[rank] - before")
	rank, d, before, size := GP64(), GP64(), GP64(), GP64()
	j := func(at int) Mem { return Mem{Base: jumps, Index: k, Scale: 8, Disp: behind<<jumpShift + at} }
	MOVL(j(jumpRank), rank.As32())
	MOVL(j(jumpDist), d.As32())
	MOVL(Mem{Base: sums, Index: k, Scale: 2, Disp: 4 * (behind + 1)}, before.As32())
	MOVL(sum.As32(), Mem{Base: sums, Index: k, Scale: 2, Disp: 4 * behind})
	ADDL(Mem{Base: sums, Index: rank, Scale: 4}, d.As32())
	SUBL(before.As32(), d.As32())
	MOVBLZX(j(jumpSize), size.As32())
	length(size, d, rank, j(jumpVanish), Mem{Base: job, Disp: jobReach})
	ADDL(size.As32(), sum.As32())
}

func lastPass() {
	TEXT("lastPassAVO", NOSPLIT, "func(job *uint64) (more bool)")
	align.Line()
	Pragma("noescape")
	Doc("lastPassAVO writes the jumps from job.next on into the gaps. It stops at the first",
		"whose length isn't what the pass before left. It returns whether it stopped at the",
		"end of a part, with more jumps behind.")
	more, job := result(), GP64()
	Load(Param("job"), job)
	sums, jumps, k, n := GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{jobJumps: jumps, jobSums: sums, jobNext: k})
	part(n, k, partMarks, Mem{Base: job, Disp: jobCount})
	CMPQ(k, n)
	JGE(LabelRef("finished"))
	w := newWriter(job, jumps, sums, n)
	CMPQ(n, Mem{Base: job, Disp: jobCount})
	JLT(LabelRef("begin"))
	w.pad()
	Label("begin")
	w.begin(k)
	Label("write")
	w.write()
	JNE(LabelRef("differs"))
	w.next()
	JLT(LabelRef("write"))
	VZEROUPPER()
	MOVQ(n, k)
	Label("finished")
	CMPQ(k, Mem{Base: job, Disp: jobCount})
	SETLT(more)
	MOVQ(k, Mem{Base: job, Disp: jobNext})
	RET()

	Label("differs")
	Comment("k = the first of the eight that does")
	w.first(k)
	VZEROUPPER()
	MOVB(U8(0), more)
	MOVQ(k, Mem{Base: job, Disp: jobNext})
	RET()
}
