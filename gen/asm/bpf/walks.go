package main

import (
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
// than the one before.
func row(name string, first, step int) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(uint32(first+step*i)))
	}
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

func charge() {
	TEXT("chargeAVO", NOSPLIT, "func(job *uint64) (done bool)")
	Pragma("noescape")
	Doc("chargeAVO walks backward from slot job.at, up to the next rare mark or for chargeChunk",
		"blocks. The lengths behind job.at are known then, and job.length is that of the slot",
		"behind. It returns whether it came to a rare mark.")
	job := GP64()
	insns, blocks, lengths, flows := GP64(), GP64(), GP64(), GP64()
	set, rare, base, at, length := GP64(), GP64(), GP64(), GP64(), GP64()
	n, left := AllocLocal(8), AllocLocal(8)
	Load(Param("job"), job)
	load(job, field{chargeInsns, insns}, field{chargeBlocks, blocks}, field{chargeLengths, lengths},
		field{chargeFlows, flows}, field{chargeAt, at}, field{chargeLength, length}, field{chargeSlots, base})
	MOVQ(base, n)
	MOVQ(U32(chargeChunk), left)

	Comment("base = the first slot of the block of at-1; its marks up to at-1")
	base = GP64()
	LEAQ(Mem{Base: at, Disp: -1}, base)
	MOVQ(base, reg.RCX)
	SHRQ(U8(6), base)
	LEAQ(Mem{Base: base, Index: base, Scale: 2}, base)
	LEAQ(Mem{Base: blocks, Index: base, Scale: 8}, blocks)
	MOVQ(U32(2), set)
	SHLQ(reg.CL, set)
	DECQ(set)
	MOVQ(reg.RCX, base)
	ANDQ(I8(-64), base)
	ANDQ(Mem{Base: blocks, Disp: chargeBlockMarks}, set)
	MOVQ(Mem{Base: blocks, Disp: chargeBlockRare}, rare)

	near, further := YMM(), YMM()
	lengthV, t, sixteen := YMM(), YMM(), YMM()
	VMOVDQU(row("downwards", 7, -1), near)
	VMOVDQU(row("further", 15, -1), further)
	VPBROADCASTD(row("sixteen", 16, 0), sixteen)
	// put sets the lengths of a slot and of the 15 in front.
	put := func(slot reg.Register) {
		VPADDD(further, lengthV, t)
		VMOVDQU(t, Mem{Base: lengths, Index: slot, Scale: 4, Disp: -60})
		VPADDD(near, lengthV, t)
		VMOVDQU(t, Mem{Base: lengths, Index: slot, Scale: 4, Disp: -28})
	}
	slot, gap, op, d, there, i := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()

	Label("put")
	Comment("Set the length of at, and of 15 slots in front as if none were a mark.")
	VMOVD(length.As32(), lengthV.AsX())
	VPBROADCASTD(lengthV.AsX(), lengthV)
	put(at)
	TESTQ(set, set)
	JEQ(LabelRef("block"))

	Label("mark")
	Comment("slot = the last mark in the set")
	BSRQ(set, i)
	BTRQ(i, set)
	LEAQ(Mem{Base: base, Index: i, Scale: 1}, slot)
	Label("gap")
	MOVQ(at, gap)
	SUBQ(slot, gap)
	CMPQ(gap, U8(16))
	JA(LabelRef("fill"))
	Label("filled")
	Comment("length = that of the next slot")
	LEAL(Mem{Base: length, Index: gap, Scale: 1, Disp: -1}, length.As32())
	BTQ(i, rare)
	JCS(LabelRef("out"))
	Comment("to = slot+1+off ahead, or the end of the program, from where there is no way")
	MOVBLZX(Mem{Base: insns, Index: slot, Scale: 8}, op.As32())
	SHLL(U8(4), op.As32())
	MOVWQSX(Mem{Base: insns, Index: slot, Scale: 8, Disp: insnOff}, d)
	LEAQ(Mem{Base: slot, Index: d, Scale: 1, Disp: 1}, there)
	TESTQ(d, d)
	CMOVQMI(n, there)
	CMPQ(there, n)
	CMOVQHI(n, there)
	Comment("length = max(length & goesOn, lengths[to] & leads) + counts")
	MOVL(Mem{Base: lengths, Index: there, Scale: 4}, there.As32())
	ANDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowLeads}, there.As32())
	ANDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowGoesOn}, length.As32())
	CMPL(there.As32(), length.As32())
	CMOVLGT(there.As32(), length.As32())
	ADDL(Mem{Base: flows, Index: op, Scale: 1, Disp: flowCounts}, length.As32())
	MOVQ(slot, at)
	JMP(LabelRef("put"))

	Label("block")
	Comment("The block in front")
	DECQ(left)
	JEQ(LabelRef("pause"))
	SUBQ(U8(chargeBlockSize), blocks)
	SUBQ(U8(64), base)
	MOVQ(Mem{Base: blocks, Disp: chargeBlockRare}, rare)
	MOVQ(Mem{Base: blocks, Disp: chargeBlockMarks}, set)
	TESTQ(set, set)
	JNE(LabelRef("mark"))
	JMP(LabelRef("block"))

	Label("pause")
	Comment("As if there were a rare mark in front of the block")
	XORL(set.As32(), set.As32())
	LEAQ(Mem{Base: base, Disp: -1}, slot)
	MOVQ(I32(-1), rare)
	JMP(LabelRef("gap"))

	Label("fill")
	Comment("Set the lengths from slot+1 on that are missing.")
	MOVQ(at, d)
	Label("more")
	SUBQ(U8(16), d)
	VPADDD(sixteen, lengthV, lengthV)
	put(d)
	LEAQ(Mem{Base: d, Disp: -16}, op)
	CMPQ(op, slot)
	JGT(LabelRef("more"))
	JMP(LabelRef("filled"))

	Label("out")
	Load(Param("job"), job)
	MOVQ(slot, Mem{Base: job, Disp: chargeAt})
	MOVQ(length, Mem{Base: job, Disp: chargeLength})
	CMPQ(left, U8(0))
	done, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	SETNE(done.Addr)
	VZEROUPPER()
	RET()
}

func mend() {
	TEXT("mendAVO", NOSPLIT, "func(job *uint64)")
	Pragma("noescape")
	Doc("mendAVO sets the distances of the jumps in the blocks from job.next up to job.stop. It",
		"stops at a block with one that leads out of the program, or too far.")
	job := GP64()
	insns, blocks, index, moved := GP64(), GP64(), GP64(), GP64()
	next, n, set, base := GP64(), GP64(), GP64(), GP64()
	Load(Param("job"), job)
	load(job, field{mendInsns, insns}, field{mendBlocks, blocks}, field{mendIndex, index}, field{mendMoved, moved},
		field{mendNext, next}, field{mendLength, n})
	MOVQ(next, base)
	SHLQ(U8(6), base)
	Comment("Blocks are as many bytes as slots.")
	Label("block")
	CMPQ(next, Mem{Base: job, Disp: mendStop})
	JGE(LabelRef("out"))
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockJumps}, set)
	TESTQ(set, set)
	JEQ(LabelRef("end"))

	Label("jump")
	Comment("moved[index[slot]].off = index[slot+1+off] - index[slot] - 1")
	slot, to, at, d, short := GP64(), GP64(), GP64(), GP64(), GP64()
	TZCNTQ(set, slot)
	ADDQ(base, slot)
	MOVWQSX(Mem{Base: insns, Index: slot, Scale: 8, Disp: insnOff}, to)
	LEAQ(Mem{Base: slot, Index: to, Scale: 1, Disp: 1}, to)
	CMPQ(to, n)
	JAE(LabelRef("out"))
	MOVL(Mem{Base: index, Index: slot, Scale: 4}, at.As32())
	MOVL(Mem{Base: index, Index: to, Scale: 4}, d.As32())
	SUBL(at.As32(), d.As32())
	DECL(d.As32())
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
	MOVQ(next, Mem{Base: job, Disp: mendNext})
	RET()
}

func landing() {
	TEXT("landingAVO", NOSPLIT, "func(insns, blocks *uint64, next, stop, n int) (wrong int)")
	Pragma("noescape")
	Doc("landingAVO returns how many jumps in the blocks from next up to stop lead to second",
		"halves of constants, or a negative number if one leads out of the n slots.")
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
	set, slot, to, word := GP64(), GP64(), GP64(), GP64()
	Label("block")
	CMPQ(base, end)
	JGE(LabelRef("out"))
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockJumps}, set)
	TESTQ(set, set)
	JEQ(LabelRef("end"))

	Label("jump")
	Comment("Bit to%64 of the seconds of block to/64")
	TZCNTQ(set, slot)
	ADDQ(base, slot)
	MOVWQSX(Mem{Base: insns, Index: slot, Scale: 8, Disp: insnOff}, to)
	LEAQ(Mem{Base: slot, Index: to, Scale: 1, Disp: 1}, to)
	CMPQ(to, n)
	JAE(LabelRef("outside"))
	MOVQ(to, word)
	ANDQ(I8(-64), word)
	MOVQ(Mem{Base: blocks, Index: word, Scale: 1, Disp: blockSeconds}, word)
	BTQ(to, word)
	ADCQ(U8(0), wrong)
	BLSRQ(set, set)
	JNE(LabelRef("jump"))

	Label("end")
	ADDQ(U8(64), base)
	JMP(LabelRef("block"))
	Label("outside")
	MOVQ(I32(-1), wrong)
	Label("out")
	Store(wrong, ReturnIndex(0))
	RET()
}
