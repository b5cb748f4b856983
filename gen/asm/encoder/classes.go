package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide makes a constant of eight 32-bit words.
func wide(name string, word uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(word))
	}
	return m
}

// narrow makes a constant of sixteen 16-bit words.
func narrow(name string, word uint16) Mem { return wide(name, uint32(word)<<16|uint32(word)) }

// A property is a class bit that comes from a slot's constants, in the order
// of tables.ClassImm8 and so on.
type property struct {
	name string
	// test leaves ones in the words of to for which the property holds.
	test func(to reg.VecVirtual)
}

// classify finds the classes of the slots of a job, but what comes from registers,
// and takes their constants apart, sixteen slots at a time. Slot next becomes element 0
// of the scratch. If not all first halves of 64-bit constants are followed by second
// ones, and nothing else is, it goes to "bad".
func classify(job reg.GPVirtual) {
	field := func(at int) Mem { return Mem{Base: job, Disp: at} }
	insns, scratch, i, n, slots, behind := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Comment("insns += 8*next; slots = stop - next; behind = all - next")
	MOVQ(field(writeNext), i)
	MOVQ(field(writeInsns), insns)
	LEAQ(Mem{Base: insns, Index: i, Scale: 8}, insns)
	MOVQ(field(writeStop), slots)
	SUBQ(i, slots)
	MOVQ(field(writeAll), behind)
	SUBQ(i, behind)
	MOVQ(field(writeScratch), scratch)
	Comment("Whole batches are read where they are, with the slot behind them: up to",
		"n = min(slots, behind-1) &^ 15.")
	LEAQ(Mem{Base: behind, Disp: -1}, n)
	CMPQ(n, slots)
	CMOVQGT(slots, n)
	ANDQ(I8(-batch), n)
	XORL(i.As32(), i.As32())
	// Of sixteen slots, and of those one further, in the order
	//
	//	0 1 2 3 8 9 10 11 | 4 5 6 7 12 13 14 15
	sum, t, a, b, low, highLow := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	zero, minusOne, wrong := YMM(), YMM(), YMM()
	byteMask, wideOp, one := wide("byteMask", 0xff), wide("wideOp", opLdImm64), narrow("one", 1)
	VPXOR(zero, zero, zero)
	VPXOR(wrong, wrong, wrong)
	VPCMPEQD(minusOne, minusOne, minusOne)
	TESTQ(n, n)
	JZ(LabelRef("rest"))

	Label("sixteen")
	Comment("The slots a page ahead: the processor's own prefetching ends where a page does,",
		"and writing comes between.")
	for line := range 2 {
		PREFETCHT0(Mem{Base: insns, Index: i, Scale: 8, Disp: page + 64*line})
	}
	// words splits eight slots into their constants and what is below.
	words := func(first int, constants, rest reg.VecVirtual) {
		at := func(k int) Mem { return Mem{Base: insns, Index: i, Scale: 8, Disp: 8 * (first + k)} }
		VMOVDQU(at(0), a.AsX())
		VINSERTI128(U8(1), at(4), a, a)
		VMOVDQU(at(2), b.AsX())
		VINSERTI128(U8(1), at(6), b, b)
		VSHUFPS(U8(0xdd), b, a, constants)
		VSHUFPS(U8(0x88), b, a, rest)
	}
	var imms, highs, offs [2]reg.VecVirtual
	for h := range 2 {
		Comment(fmt.Sprintf("imm and op, regs, off of slots %d to %d, and of those behind them", 8*h, 8*h+7))
		imms[h], highs[h], offs[h] = YMM(), YMM(), YMM()
		words(8*h, imms[h], low)
		words(8*h+1, highs[h], highLow)
		Comment("A slot is the first half of a constant if and only if the next is a second half.")
		VPAND(byteMask, highLow, highLow)
		VPCMPEQD(zero, highLow, highLow)
		VPAND(byteMask, low, t)
		VPCMPEQD(wideOp, t, t)
		VPXOR(highLow, t, t)
		VPOR(t, wrong, wrong)
		Comment("fields[i] = off with its sign, and imm")
		VPSRAD(U8(16), low, offs[h])
		even, odd := a, b
		VPUNPCKLDQ(imms[h], offs[h], even) // 0 1 | 4 5
		VPUNPCKHDQ(imms[h], offs[h], odd)  // 2 3 | 6 7
		field := func(k int) Mem { return Mem{Base: scratch, Index: i, Scale: 8, Disp: scratchFields + 8*(8*h+k)} }
		VMOVDQU(even.AsX(), field(0))
		VMOVDQU(odd.AsX(), field(2))
		VEXTRACTI128(U8(1), even, field(4))
		VEXTRACTI128(U8(1), odd, field(6))
	}
	Comment("Words of 16 bits: what doesn't fit becomes the largest or smallest that does.")
	imm, highImm, off := imms[0], highs[0], offs[0]
	VPACKSSDW(imms[1], imms[0], imm)
	VPACKSSDW(highs[1], highs[0], highImm)
	VPACKSSDW(offs[1], offs[0], off)

	// fits8 tests whether words are bytes with a sign.
	fits8 := func(v, to reg.VecVirtual) {
		VPSLLW(U8(8), v, to)
		VPSRAW(U8(8), to, to)
		VPCMPEQW(v, to, to)
	}
	for k, p := range []property{
		{"imm8", func(to reg.VecVirtual) { fits8(imm, to) }},
		{"immNeg", func(to reg.VecVirtual) { VPSRAW(U8(15), imm, to) }},
		{"immZero", func(to reg.VecVirtual) { VPCMPEQW(zero, imm, to) }},
		{"immOne", func(to reg.VecVirtual) { VPCMPEQW(one, imm, to) }},
		{"highZero", func(to reg.VecVirtual) { VPCMPEQW(zero, highImm, to) }},
		{"highOnes", func(to reg.VecVirtual) { VPCMPEQW(minusOne, highImm, to) }},
		{"off8", func(to reg.VecVirtual) { fits8(off, to) }},
		{"offZero", func(to reg.VecVirtual) { VPCMPEQW(zero, off, to) }},
	} {
		Comment(p.name)
		bit := narrow(p.name, firstProperty<<k)
		if k == 0 {
			p.test(sum)
			VPAND(bit, sum, sum)
			continue
		}
		p.test(t)
		VPAND(bit, t, t)
		VPOR(t, sum, sum)
	}
	Comment("The order of slots again")
	VPERMQ(U8(0xd8), sum, sum)
	VMOVDQU(sum, Mem{Base: scratch, Index: i, Scale: 2, Disp: scratchClass})
	ADDQ(U8(16), i)
	CMPQ(i, n)
	JLT(LabelRef("sixteen"))
	Label("rest")
	CMPQ(i, slots)
	JGE(LabelRef("classified"))
	lastBatch(scratch, insns, i, behind)
	LEAQ(Mem{Base: i, Disp: batch}, n)
	JMP(LabelRef("sixteen"))

	Label("classified")
	Comment("The last slot's upper half of a constant is the imm behind it.")
	XORL(n.As32(), n.As32())
	CMPQ(slots, behind)
	JGE(LabelRef("nothing"))
	MOVQ(field(writeStop), i)
	MOVQ(field(writeInsns), insns)
	MOVL(Mem{Base: insns, Index: i, Scale: 8, Disp: insnImm}, n.As32())
	SHLQ(U8(32), n)
	Label("nothing")
	MOVQ(n, Mem{Base: scratch, Index: slots, Scale: 8, Disp: scratchFields})
	VPTEST(wrong, wrong)
	JNZ(LabelRef("bad"))
}

// lastBatch makes the slots from i on, which aren't a whole batch and the slot behind
// it, those of a copy with more behind them: jumps, which are no half of a constant.
func lastBatch(scratch, insns, i, behind reg.GPVirtual) {
	last := func(k int) Mem { return Mem{Base: scratch, Disp: scratchLast + 8*k} }
	at := func(k int) Mem { return Mem{Base: insns, Index: i, Scale: 8, Disp: 8 * k} }
	numbers := GLOBL("numbers", RODATA|NOPTR)
	for k := range batch {
		DATA(8*k, U64(k))
	}
	jumps := GLOBL("jumps", RODATA|NOPTR)
	for k := range 4 {
		DATA(8*k, U64(opJa))
	}
	Comment("Read what there is of seventeen slots. Nothing is read where the mask is 0.")
	left, t := GP64(), GP64()
	count, mask, slots, jump := YMM(), YMM(), YMM(), YMM()
	MOVQ(behind, left)
	SUBQ(i, left)
	VMOVQ(left, count.AsX())
	VPBROADCASTQ(count.AsX(), count)
	VMOVDQU(jumps, jump)
	for k := 0; k < batch; k += 4 {
		VPCMPGTQ(numbers.Offset(8*k), count, mask)
		VPMASKMOVQ(at(k), mask, slots)
		VPBLENDVB(mask, slots, jump, slots)
		VMOVDQU(slots, last(k))
	}
	MOVL(U32(opJa), t.As32())
	CMPQ(left, U8(batch))
	JLE(LabelRef("copied"))
	MOVQ(at(batch), t)
	Label("copied")
	MOVQ(t, last(batch))
	Comment("insns = last - 8*i")
	MOVQ(i, t)
	SHLQ(U8(3), t)
	LEAQ(last(0), insns)
	SUBQ(t, insns)
}
