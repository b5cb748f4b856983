package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// load reads fields of a job.
func load(job reg.Register, fields ...field) {
	for _, f := range fields {
		MOVQ(Mem{Base: job, Disp: f.at}, f.to)
	}
}

type field struct {
	at int
	to reg.GPVirtual
}

// row makes a constant of eight 32-bit words, from first on, each by step more
// than the one before, or finds the one that it has made before.
func row(name string, first, step int) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(uint32(first+step*i)))
	}
	made[name] = m
	return m
}

func count() {
	TEXT("countAVO", NOSPLIT, "func(s *uint32, n, from int)")
	Pragma("noescape")
	Doc("countAVO sets n elements, at least 8, to from, from+1 and so on.")
	s, n, from, i := GP64(), GP64(), GP64(), GP64()
	Load(Param("s"), s)
	Load(Param("n"), n)
	Load(Param("from"), from)
	a, eight := YMM(), YMM()
	upwards := row("upwards", 0, 1)
	VMOVD(from.As32(), a.AsX())
	VPBROADCASTD(a.AsX(), a)
	VPADDD(upwards, a, a)
	VPBROADCASTD(row("eight", 8, 0), eight)
	XORL(i.As32(), i.As32())
	SUBQ(U8(8), n)
	Label("eight")
	VMOVDQU(a, Mem{Base: s, Index: i, Scale: 4})
	VPADDD(eight, a, a)
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLE(LabelRef("eight"))
	Comment("The last eight")
	ADDQ(n, from)
	VMOVD(from.As32(), a.AsX())
	VPBROADCASTD(a.AsX(), a)
	VPADDD(upwards, a, a)
	VMOVDQU(a, Mem{Base: s, Index: n, Scale: 4})
	VZEROUPPER()
	RET()
}

func move() {
	TEXT("moveAVO", NOSPLIT, "func(p *uint64)")
	Pragma("noescape")
	Doc("moveAVO moves the slots from p.slot up to p.next, which is behind: it copies them to p.at,",
		"sets their elements of the index, and clears their flags. It moves eight at a time, also",
		"some from next on, which are moved again: not further than the program is long.")
	job := GP64()
	insns, moved, index, flags := GP64(), GP64(), GP64(), GP64()
	slot, at, next, last := GP64(), GP64(), GP64(), GP64()
	Load(Param("p"), job)
	load(job, field{patchInsns, insns}, field{patchMoved, moved}, field{patchIndex, index}, field{patchFlags, flags},
		field{patchSlot, slot}, field{patchAt, at}, field{patchNext, next}, field{patchSlots, last})
	a, b, places, eight, zero := YMM(), YMM(), YMM(), YMM(), GP64()
	VMOVD(at.As32(), places.AsX())
	VPBROADCASTD(places.AsX(), places)
	VPADDD(row("upwards", 0, 1), places, places)
	VPBROADCASTD(row("eight", 8, 0), eight)
	XORL(zero.As32(), zero.As32())
	Comment("The last slot that has seven more behind it")
	SUBQ(U8(8), last)
	Label("eight")
	CMPQ(slot, last)
	JGT(LabelRef("one"))
	VMOVDQU(Mem{Base: insns, Index: slot, Scale: 8}, a)
	VMOVDQU(Mem{Base: insns, Index: slot, Scale: 8, Disp: 32}, b)
	VMOVDQU(a, Mem{Base: moved, Index: at, Scale: 8})
	VMOVDQU(b, Mem{Base: moved, Index: at, Scale: 8, Disp: 32})
	VMOVDQU(places, Mem{Base: index, Index: slot, Scale: 4})
	MOVQ(zero, Mem{Base: flags, Index: at, Scale: 1})
	VPADDD(eight, places, places)
	ADDQ(U8(8), slot)
	ADDQ(U8(8), at)
	CMPQ(slot, next)
	JLT(LabelRef("eight"))
	Comment("Back from what is behind next")
	SUBQ(next, slot)
	SUBQ(slot, at)
	Label("out")
	MOVQ(next, Mem{Base: job, Disp: patchSlot})
	MOVQ(at, Mem{Base: job, Disp: patchAt})
	VZEROUPPER()
	RET()

	Label("one")
	word := GP64()
	MOVQ(Mem{Base: insns, Index: slot, Scale: 8}, word)
	MOVQ(word, Mem{Base: moved, Index: at, Scale: 8})
	MOVL(at.As32(), Mem{Base: index, Index: slot, Scale: 4})
	MOVB(zero.As8(), Mem{Base: flags, Index: at, Scale: 1})
	INCQ(slot)
	INCQ(at)
	CMPQ(slot, next)
	JLT(LabelRef("one"))
	JMP(LabelRef("out"))
}

func charge() {
	TEXT("chargeAVO", NOSPLIT, "func(c, flows *uint64)")
	Pragma("noescape")
	Doc("chargeAVO walks backward from slot c.at to c.stop, which is in front. Where a charge",
		"point is, it puts a charge in front of the last c.left. It may write to the element in",
		"front of those; slot 0 is a charge point, so there is one.")
	job := GP64()
	insns, blocks, marks, lengths, next, flows := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	set, base, at, length := GP64(), GP64(), GP64(), GP64()
	points, stop, n := AllocLocal(8), AllocLocal(8), AllocLocal(8)
	Load(Param("c"), job)
	Load(Param("flows"), flows)
	for _, f := range []struct {
		at int
		to Mem
	}{{chargeSlots, n}, {chargeStop, stop}} {
		MOVQ(Mem{Base: job, Disp: f.at}, set)
		MOVQ(set, f.to)
	}
	load(job, field{chargeInsns, insns}, field{chargeBlocks, blocks}, field{chargeMarks, marks}, field{chargeLengths, lengths},
		field{chargeCharges, next}, field{chargeAt, at}, field{chargeLength, length},
		field{chargeBase, base}, field{chargeLeft, set})
	Comment("lengths = where that of slot 0 would be; next = behind the next charge")
	SHLQ(U8(2), base)
	SUBQ(base, lengths)
	LEAQ(Mem{Base: next, Index: set, Scale: 8}, next)

	slot, op, d, there, mark := GP64(), GP64(), GP64(), GP64(), GP64()
	Comment("base = the first slot of the block of at-1; set = marks up to at-1. Between marks, what is",
		"kept of a slot is its length, and its number less 1: the same for each.")
	LEAQ(Mem{Base: at, Disp: -1}, base)
	ADDL(base.As32(), length.As32())
	MOVQ(U32(2), set)
	SHLXQ(base, set, set)
	DECQ(set)
	ANDQ(I8(-64), base)
	JMP(LabelRef("marks"))

	Label("block")
	Comment("The block in front")
	CMPQ(base, stop)
	JLE(LabelRef("out"))
	SUBQ(U8(64), base)
	MOVQ(I32(-1), set)
	Label("marks")
	Comment("Those from stop on of set, which are all but in the first block and in the last. Blocks are",
		"as many bytes as slots.")
	MOVQ(base, op)
	SHRQ(U8(3), op)
	ANDQ(Mem{Base: marks, Index: op, Scale: 1}, set)
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockPoints}, op)
	MOVQ(op, points)
	MOVQ(stop, d)
	CMPQ(base, d)
	JGE(LabelRef("begun"))
	MOVQ(I32(-1), op)
	SHLXQ(d, op, op)
	ANDQ(op, set)
	Label("begun")
	TESTQ(set, set)
	JEQ(LabelRef("block"))

	Label("mark")
	Comment("slot = the last mark in the set; length = that of the next slot")
	LZCNTQ(set, slot)
	XORQ(U8(63), slot)
	BTRQ(slot, set)
	ADDQ(base, slot)
	SUBL(slot.As32(), length.As32())
	Comment("there = slot+1+off, or the end of the program, or slot if it leads back; d = -1 then, or 0")
	MOVWQSX(Mem{Base: insns, Index: slot, Scale: 8, Disp: insnOff}, d)
	LEAQ(Mem{Base: slot, Index: d, Scale: 1, Disp: 1}, there)
	SARQ(U8(63), d)
	CMOVQMI(slot, there)
	CMPQ(there, n)
	CMOVQHI(n, there)
	Comment("mark = how far it is to the one at there or next behind; usually it is among some 57 slots")
	MOVQ(there, mark)
	SHRQ(U8(3), mark)
	MOVL(there.As32(), op.As32())
	ANDL(U8(7), op.As32())
	SHRXQ(op, Mem{Base: marks, Index: mark, Scale: 1}, mark)
	TZCNTQ(mark, mark)
	JCS(LabelRef("search"))
	Label("found")
	Comment("there = the length from there, which is that of the mark and what is between, or 0 if d")
	ADDQ(mark, there)
	ADDL(Mem{Base: lengths, Index: there, Scale: 4}, mark.As32())
	ANDNL(mark.As32(), d.As32(), there.As32())
	Comment("length = max(length & goesOn, there & leads) + counts")
	MOVBLZX(Mem{Base: insns, Index: slot, Scale: 8}, op.As32())
	SHLL(U8(4), op.As32())
	ANDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowLeads}, there.As32())
	ANDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowGoesOn}, length.As32())
	CMPL(there.As32(), length.As32())
	CMOVLGT(there.As32(), length.As32())
	ADDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowCounts}, length.As32())
	Comment("A charge, which counts if slot is a point; the length is then none.")
	MOVL(slot.As32(), Mem{Base: next, Disp: -8})
	MOVL(length.As32(), Mem{Base: next, Disp: -4})
	MOVQ(points, op)
	BTQ(slot, op)
	SBBQ(op, op)
	LEAQ(Mem{Base: next, Index: op, Scale: 8}, next)
	ANDNL(length.As32(), op.As32(), length.As32())
	MOVL(length.As32(), Mem{Base: lengths, Index: slot, Scale: 4})
	LEAL(Mem{Base: length, Index: slot, Scale: 1, Disp: -1}, length.As32())
	TESTQ(set, set)
	JNE(LabelRef("mark"))
	JMP(LabelRef("block"))

	Label("search")
	Comment("In the 64 slots behind those; there is one at the end of the program.")
	MOVQ(there, op)
	ANDQ(I8(-8), op)
	Label("further")
	ADDQ(U8(64), op)
	MOVQ(op, mark)
	SHRQ(U8(3), mark)
	MOVQ(Mem{Base: marks, Index: mark, Scale: 1}, mark)
	TZCNTQ(mark, mark)
	JCS(LabelRef("further"))
	ADDQ(op, mark)
	SUBQ(there, mark)
	JMP(LabelRef("found"))

	Label("out")
	Comment("The length of stop")
	MOVQ(stop, slot)
	INCL(length.As32())
	SUBL(slot.As32(), length.As32())
	Load(Param("c"), job)
	MOVQ(slot, Mem{Base: job, Disp: chargeAt})
	MOVQ(length, Mem{Base: job, Disp: chargeLength})
	SUBQ(Mem{Base: job, Disp: chargeCharges}, next)
	SHRQ(U8(3), next)
	MOVQ(next, Mem{Base: job, Disp: chargeLeft})
	RET()
}

// jump sets slot to the next one of a set, whose first bit is slot base, and to to
// where its jump leads.
func jump(insns, base, set, slot, to reg.Register) {
	TZCNTQ(set, slot)
	ADDQ(base, slot)
	MOVWQSX(Mem{Base: insns, Index: slot, Scale: 8, Disp: insnOff}, to)
	LEAQ(Mem{Base: slot, Index: to, Scale: 1, Disp: 1}, to)
}

func mend() {
	TEXT("mendAVO", NOSPLIT, "func(p *uint64)")
	Pragma("noescape")
	Doc("mendAVO sets the distances of the jumps in the blocks from p.block up to p.stop. It",
		"stops at a block with one that leads further than is known, or too far.")
	job := GP64()
	insns, blocks, index, moved := GP64(), GP64(), GP64(), GP64()
	next, n, set, base := GP64(), GP64(), GP64(), GP64()
	Load(Param("p"), job)
	load(job, field{patchInsns, insns}, field{patchBlocks, blocks}, field{patchIndex, index}, field{patchMoved, moved},
		field{patchBlock, next}, field{patchKnown, n})
	MOVQ(next, base)
	SHLQ(U8(6), base)
	Comment("Blocks are as many bytes as slots.")
	Label("block")
	CMPQ(next, Mem{Base: job, Disp: patchStop})
	JGE(LabelRef("out"))
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockJumps}, set)
	TESTQ(set, set)
	JEQ(LabelRef("end"))

	Label("jump")
	Comment("moved[index[slot]].off = index[slot+1+off] - index[slot] - 1")
	slot, to, at, d, short := GP64(), GP64(), GP64(), GP64(), GP64()
	jump(insns, base, set, slot, to)
	CMPQ(to, n)
	JAE(LabelRef("out"))
	MOVL(Mem{Base: index, Index: slot, Scale: 4}, at.As32())
	MOVL(Mem{Base: index, Index: to, Scale: 4}, d.As32())
	Comment("The carry is still 1.")
	SBBL(at.As32(), d.As32())
	MOVWLSX(d.As16(), short.As32())
	CMPL(short.As32(), d.As32())
	JNE(LabelRef("out"))
	MOVW(d.As16(), Mem{Base: moved, Index: at, Scale: 8, Disp: insnOff})
	BLSRQ(set, set)
	JNE(LabelRef("jump"))

	Label("end")
	ADDQ(U8(64), base)
	INCQ(next)
	JMP(LabelRef("block"))
	Label("out")
	MOVQ(next, Mem{Base: job, Disp: patchBlock})
	RET()
}

func follow() {
	TEXT("followAVO", NOSPLIT, "func(insns, blocks *uint64, next, stop, n int) (wrong int)")
	Pragma("noescape")
	Doc("followAVO follows the jumps in the blocks from next up to stop: it sets least and most, and",
		"the points that jumps back lead to. It returns how many lead to second halves of",
		"constants, or a negative number if one leads out of the n slots; it stops there.")
	insns, blocks, base, end, n, wrong := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Load(Param("insns"), insns)
	Load(Param("blocks"), blocks)
	Load(Param("next"), base)
	Load(Param("stop"), end)
	Load(Param("n"), n)
	Comment("Blocks are as many bytes as slots.")
	SHLQ(U8(6), base)
	SHLQ(U8(6), end)
	XORL(wrong.As32(), wrong.As32())
	set, slot, to, word, point, least, most := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Label("block")
	CMPQ(base, end)
	JGE(LabelRef("out"))
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockJumps}, set)
	MOVL(U32(math.MaxInt32), least.As32())
	MOVQ(I32(-1), most)
	TESTQ(set, set)
	JEQ(LabelRef("end"))

	Label("jump")
	Comment("Bit to%64 of the seconds of block to/64")
	jump(insns, base, set, slot, to)
	CMPQ(to, n)
	JAE(LabelRef("outside"))
	CMPQ(to, least)
	CMOVQLT(to, least)
	CMPQ(to, most)
	CMOVQGT(to, most)
	MOVQ(to, word)
	ANDQ(I8(-64), word)
	MOVQ(Mem{Base: blocks, Index: word, Scale: 1, Disp: blockSeconds}, word)
	BTQ(to, word)
	ADCQ(U8(0), wrong)
	BLSRQ(set, set)
	JNE(LabelRef("jump"))
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockBack}, set)
	TESTQ(set, set)
	JEQ(LabelRef("end"))

	Label("back")
	Comment("Bit to%64 of the points of block to/64. Nobody should change the program meanwhile; but",
		"this one is written.")
	jump(insns, base, set, slot, to)
	CMPQ(to, n)
	JAE(LabelRef("outside"))
	MOVQ(to, word)
	ANDQ(I8(-64), word)
	MOVL(U32(1), point.As32())
	SHLXQ(to, point, point)
	ORQ(point, Mem{Base: blocks, Index: word, Scale: 1, Disp: blockPoints})
	BLSRQ(set, set)
	JNE(LabelRef("back"))

	Label("end")
	MOVL(least.As32(), Mem{Base: blocks, Index: base, Scale: 1, Disp: blockLeast})
	MOVL(most.As32(), Mem{Base: blocks, Index: base, Scale: 1, Disp: blockMost})
	ADDQ(U8(64), base)
	JMP(LabelRef("block"))
	Label("outside")
	MOVQ(I32(-1), wrong)
	Label("out")
	Store(wrong, ReturnIndex(0))
	RET()
}
