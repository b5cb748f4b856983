package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
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

// lanes makes a constant of four 64-bit words, from first on, each by 1 more than the one
// before, or finds the one that it has made before.
func lanes(first int) Mem {
	name := fmt.Sprint("lanes", first)
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(uint64(first+i)))
	}
	made[name] = m
	return m
}

// placer is what placeAVO works with.
type placer struct {
	job, insns, moved, index, flags, slot, at reg.GPVirtual
	// patch and charge are the next ones, patches where those end.
	patch           reg.GPVirtual
	patches, charge Mem
	slots           Mem // of the program
	end             Mem // to what is moved
	to, t           reg.GPVirtual
}

func place() {
	TEXT("placeAVO", NOSPLIT, "func(p, s *uint64, unusual *uint8)")
	align.Line()
	Pragma("noescape")
	Doc("placeAVO moves the slots from p.slot up to p.next, which is behind, and places their patches",
		"and charges. It stops in front of one that may be wrong, has no room, or changes an unusual",
		"slot.")
	p := placer{GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8), GP64(), GP64()}
	Load(Param("p"), p.job)
	Load(Param("s"), p.t)
	load(p.t, field{surveyProgram, p.insns}, field{surveySlots, p.to})
	MOVQ(Mem{Base: p.insns, Disp: programInsns}, p.insns)
	MOVQ(p.to, p.slots)
	load(p.job, field{patchMoved, p.moved}, field{patchIndex, p.index}, field{patchFlags, p.flags},
		field{patchSlot, p.slot}, field{patchAt, p.at})
	IMUL3Q(U8(aPatchSize), p.field(patchPatch), p.patch)
	IMUL3Q(U8(aPatchSize), p.field(patchCount), p.to)
	MOVQ(p.field(patchPatches), p.t)
	ADDQ(p.t, p.patch)
	ADDQ(p.t, p.to)
	MOVQ(p.to, p.patches)
	MOVQ(p.field(patchCharges), p.t)
	MOVQ(p.field(patchCharge), p.to)
	LEAQ(Mem{Base: p.t, Index: p.to, Scale: aChargeSize}, p.t)
	MOVQ(p.t, p.charge)

	Label("next")
	Comment("to = the slot of the next charge or patch, or p.next")
	MOVQ(p.charge, p.t)
	MOVLQSX(Mem{Base: p.t, Disp: aChargeSlot}, p.to)
	CMPQ(p.to, p.field(patchNext))
	CMOVQGT(p.field(patchNext), p.to)
	CMPQ(p.patch, p.patches)
	JEQ(LabelRef("move"))
	CMPQ(p.to, Mem{Base: p.patch, Disp: aPatchSlot})
	CMOVQGT(Mem{Base: p.patch, Disp: aPatchSlot}, p.to)
	Label("move")
	CMPQ(p.slot, p.to)
	JEQ(LabelRef("moved"))
	JGT(LabelRef("out"))
	MOVQ(p.to, p.end)
	p.move()
	Label("moved")
	CMPQ(p.slot, p.field(patchNext))
	JEQ(LabelRef("out"))
	MOVQ(p.charge, p.t)
	CMPL(p.slot.As32(), Mem{Base: p.t, Disp: aChargeSlot})
	JNE(LabelRef("patch"))

	Comment("A charge, unless the next patch is one with Enter here")
	CMPQ(p.patch, p.patches)
	JEQ(LabelRef("charge"))
	CMPQ(p.slot, Mem{Base: p.patch, Disp: aPatchSlot})
	JNE(LabelRef("charge"))
	CMPQ(Mem{Base: p.patch, Disp: aPatchOwn}, I8(-1))
	JLT(LabelRef("out"))
	Label("charge")
	p.unusual()
	CMPL(p.to.As32(), U8(anyway))
	JEQ(LabelRef("out"))
	MOVL(U32(1), p.to.As32())
	p.need("chargeBegun")
	MOVQ(p.charge, p.t)
	MOVL(Mem{Base: p.t, Disp: aChargeN}, p.to.As32())
	MOVL(U32(opCharge), Mem{Base: p.moved, Index: p.at, Scale: 8})
	MOVL(p.to.As32(), Mem{Base: p.moved, Index: p.at, Scale: 8, Disp: insnImm})
	MOVB(U8(inserted), Mem{Base: p.flags, Index: p.at, Scale: 1})
	INCQ(p.at)
	ADDQ(U8(aChargeSize), p.t)
	MOVQ(p.t, p.charge)
	INCQ(p.field(patchCharge))
	JMP(LabelRef("next"))

	Label("patch")
	p.place()
	CMPQ(p.slot, p.field(patchNext))
	JLT(LabelRef("next"))

	Label("out")
	MOVQ(p.slot, p.field(patchSlot))
	MOVQ(p.at, p.field(patchAt))
	VZEROUPPER()
	RET()
}

func (p *placer) field(at int) Mem { return Mem{Base: p.job, Disp: at} }

// unusual sets to to what is unusual about the slot.
func (p *placer) unusual() {
	Load(Param("unusual"), p.t)
	MOVBQZX(Mem{Base: p.insns, Index: p.slot, Scale: 8}, p.to)
	MOVBLZX(Mem{Base: p.t, Index: p.to, Scale: 1}, p.to.As32())
}

// need goes out if there is no room for to instructions and the slots that are left.
// It begins the slot.
func (p *placer) need(begun string) {
	ADDQ(p.slots, p.to)
	SUBQ(p.slot, p.to)
	ADDQ(p.at, p.to)
	CMPQ(p.to, p.field(patchRoom))
	JGT(LabelRef("out"))
	Comment("If the slot was begun, its first instruction is elsewhere.")
	CMPQ(p.slot, p.field(patchBegun))
	JEQ(LabelRef(begun))
	MOVQ(p.slot, p.field(patchBegun))
	MOVQ(p.at, p.field(patchFirst))
	Label(begun)
}

// place places a patch that has an own instruction, or goes in front of one.
func (p *placer) place() {
	n, own := GP64(), GP64()
	MOVQ(Mem{Base: p.patch, Disp: aPatchCount}, n)
	MOVQ(Mem{Base: p.patch, Disp: aPatchOwn}, own)
	CMPQ(own, n)
	JGE(LabelRef("out"))
	CMPQ(own, I8(-1))
	JLT(LabelRef("out"))
	Comment("How unusual the slot is, less 1 if the patch goes in front")
	p.unusual()
	MOVQ(own, p.t)
	SARQ(U8(63), p.t)
	ADDL(p.t.As32(), p.to.As32())
	JGT(LabelRef("out"))
	MOVQ(n, p.to)
	p.need("patchBegun")
	ADDQ(p.at, own)
	ADDQ(p.at, n)
	MOVQ(Mem{Base: p.patch, Disp: aPatchInsns}, p.t)
	Label("insn")
	CMPQ(p.at, n)
	JGE(LabelRef("placed"))
	MOVQ(Mem{Base: p.t}, p.to)
	MOVQ(p.to, Mem{Base: p.moved, Index: p.at, Scale: 8})
	MOVB(U8(inserted), Mem{Base: p.flags, Index: p.at, Scale: 1})
	ADDQ(U8(8), p.t)
	INCQ(p.at)
	JMP(LabelRef("insn"))
	Label("placed")
	CMPQ(Mem{Base: p.patch, Disp: aPatchOwn}, U8(0))
	JLT(LabelRef("done"))
	MOVB(U8(0), Mem{Base: p.flags, Index: own, Scale: 1})
	MOVQ(p.field(patchFirst), p.t)
	MOVL(p.t.As32(), Mem{Base: p.index, Index: p.slot, Scale: 4})
	INCQ(p.slot)
	Label("done")
	ADDQ(U8(aPatchSize), p.patch)
	INCQ(p.field(patchPatch))
}

// move copies the slots up to to, sets their elements of the index, and clears their
// flags. It moves sixteen at a time, also some behind, which are moved again; there is
// room for them. What is behind the program isn't read.
func (p *placer) move() {
	vectors := []reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	places, eight, zero, left, mask := YMM(), YMM(), XMM(), YMM(), YMM()
	insns, moved, index, flags, slot, at, to, t := p.insns, p.moved, p.index, p.flags, p.slot, p.at, p.to, p.t
	VMOVD(at.As32(), places.AsX())
	VPBROADCASTD(places.AsX(), places)
	VPADDD(row("upwards", 0, 1), places, places)
	VMOVDQU(row("eight", 8, 0), eight)
	VPXOR(zero, zero, zero)
	Label("sixteen")
	for line := range 2 {
		PREFETCHT0(Mem{Base: moved, Index: at, Scale: 8, Disp: ahead + 64*line})
	}
	PREFETCHT0(Mem{Base: index, Index: slot, Scale: 4, Disp: ahead})
	LEAQ(Mem{Base: slot, Disp: 16}, t)
	CMPQ(t, p.slots)
	JGT(LabelRef("last"))
	for i, v := range vectors {
		VMOVDQU(Mem{Base: insns, Index: slot, Scale: 8, Disp: 32 * i}, v)
	}
	Label("read")
	for i, v := range vectors {
		VMOVDQU(v, Mem{Base: moved, Index: at, Scale: 8, Disp: 32 * i})
	}
	for i := range 2 {
		VMOVDQU(places, Mem{Base: index, Index: slot, Scale: 4, Disp: 32 * i})
		VPADDD(eight, places, places)
	}
	VMOVDQU(zero, Mem{Base: flags, Index: at, Scale: 1})
	MOVQ(t, slot)
	ADDQ(U8(16), at)
	CMPQ(slot, to)
	JLT(LabelRef("sixteen"))
	Comment("Back from what is behind")
	SUBQ(to, slot)
	SUBQ(slot, at)
	MOVQ(to, slot)
	Comment("A slot that was begun has its first instruction in front.")
	MOVQ(p.field(patchBegun), to)
	MOVQ(p.field(patchFirst), t)
	MOVL(t.As32(), Mem{Base: index, Index: to, Scale: 4})
	JMP(LabelRef("moved"))

	Label("last")
	Comment("The last slots of the program, less than sixteen: zeros are behind them.")
	MOVQ(p.slots, to)
	SUBQ(slot, to)
	VMOVQ(to, left.AsX())
	VPBROADCASTQ(left.AsX(), left)
	for i, v := range vectors {
		VPCMPGTQ(lanes(4*i), left, mask)
		VPMASKMOVQ(Mem{Base: insns, Index: slot, Scale: 8, Disp: 32 * i}, mask, v)
	}
	MOVQ(p.end, to)
	JMP(LabelRef("read"))
}

func charge() {
	TEXT("chargeAVO", NOSPLIT, "func(s, flows *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("chargeAVO walks backward from slot at of the charger of s to stop, which is in front. It",
		"begins the end of the program, and finds the marks of blocks that it comes to. Where a charge",
		"point is, it puts a charge in front of those from left on; there is room for one for each slot.")
	job := GP64()
	insns, blocks, marks, lengths, next, flows := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	set, base, at, length := GP64(), GP64(), GP64(), GP64()
	stop, n := AllocLocal(8), AllocLocal(8)
	slot, op, d, there, mark, points := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Load(Param("s"), job)
	Load(Param("flows"), flows)
	load(job, field{surveyProgram, insns}, field{surveyBlocks, blocks}, field{surveySlots, set})
	MOVQ(Mem{Base: insns, Disp: programInsns}, insns)
	MOVQ(set, n)
	ADDQ(U32(surveyCharger), job)
	MOVQ(Mem{Base: job, Disp: chargeStop}, set)
	MOVQ(set, stop)
	load(job, field{chargeMarks, marks}, field{chargeLengths, lengths}, field{chargeCharges, next}, field{chargeAt, at},
		field{chargeLength, length}, field{chargeBase, base}, field{chargeLeft, set})
	Comment("lengths = where that of slot 0 would be; next = behind the next charge")
	SHLQ(U8(2), base)
	SUBQ(base, lengths)
	LEAQ(Mem{Base: next, Index: set, Scale: 8}, next)
	Comment("base = the first slot of the block of at; d = how far its marks are")
	MOVQ(at, base)
	ANDQ(I8(-64), base)
	MOVQ(base, d)
	SHRQ(U8(3), d)
	MOVL(U32(1), op.As32())
	SHLXQ(at, op, op)
	CMPQ(at, n)
	JNE(LabelRef("begin"))
	Comment("The end of the program is a mark with the length 0; there may be others in front.")
	XORL(length.As32(), length.As32())
	MOVL(length.As32(), Mem{Base: lengths, Index: at, Scale: 4})
	MOVQ(op, Mem{Base: marks, Index: d, Scale: 1})
	CMPQ(base, at)
	JEQ(LabelRef("begin"))
	findMarks(blocks, base, set)
	ORQ(set, Mem{Base: marks, Index: d, Scale: 1})
	Label("begin")
	Comment("Between marks, what is kept of a slot is its length, and its number less 1: the same for",
		"each.")
	LEAL(Mem{Base: length, Index: at, Scale: 1, Disp: -1}, length.As32())
	Comment("set = marks in front of at, if there are some")
	LEAQ(Mem{Base: op, Disp: -1}, set)
	ANDQ(Mem{Base: marks, Index: d, Scale: 1}, set)
	CMPQ(base, at)
	JNE(LabelRef("marks"))

	Label("block")
	Comment("The block in front. Blocks are as many bytes as slots.")
	CMPQ(base, stop)
	JLE(LabelRef("out"))
	SUBQ(U8(64), base)
	MOVQ(base, d)
	SHRQ(U8(3), d)
	findMarks(blocks, base, set)
	Comment("Its last slot is a mark in any case, with this length unless it is visited: so the next mark",
		"from a slot on is in the same block.")
	MOVQ(I32(-1), op)
	SHLQ(U8(63), op)
	ORQ(set, op)
	MOVQ(op, Mem{Base: marks, Index: d, Scale: 1})
	MOVL(length.As32(), op.As32())
	SUBL(base.As32(), op.As32())
	SUBL(U8(62), op.As32())
	MOVL(op.As32(), Mem{Base: lengths, Index: base, Scale: 4, Disp: 4 * 63})
	Label("marks")
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockPoints}, points)
	MOVQ(stop, op)
	CMPQ(base, op)
	JGE(LabelRef("begun"))
	Comment("The last block: marks in front of stop are for another time.")
	MOVQ(I32(-1), d)
	SHLXQ(op, d, d)
	ANDQ(d, set)
	Label("begun")
	LZCNTQ(set, slot)
	JCS(LabelRef("block"))

	Label("mark")
	Comment("slot = the last mark in the set; length = that of the next slot")
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
	Comment("mark = how far it is to the one at there or next behind")
	MOVQ(there, mark)
	SHRQ(U8(6), mark)
	SHRXQ(there, Mem{Base: marks, Index: mark, Scale: 8}, mark)
	TZCNTQ(mark, mark)
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
	BTQ(slot, points)
	SBBQ(op, op)
	LEAQ(Mem{Base: next, Index: op, Scale: 8}, next)
	ANDNL(length.As32(), op.As32(), length.As32())
	MOVL(length.As32(), Mem{Base: lengths, Index: slot, Scale: 4})
	LEAL(Mem{Base: length, Index: slot, Scale: 1, Disp: -1}, length.As32())
	LZCNTQ(set, slot)
	JCC(LabelRef("mark"))
	JMP(LabelRef("block"))

	Label("out")
	Comment("The length of stop")
	MOVQ(stop, slot)
	INCL(length.As32())
	SUBL(slot.As32(), length.As32())
	Load(Param("s"), job)
	ADDQ(U32(surveyCharger), job)
	MOVQ(slot, Mem{Base: job, Disp: chargeAt})
	MOVQ(length, Mem{Base: job, Disp: chargeLength})
	SUBQ(Mem{Base: job, Disp: chargeCharges}, next)
	SHRQ(U8(3), next)
	MOVQ(next, Mem{Base: job, Disp: chargeLeft})
	RET()
}

// findMarks sets set to the slots of the block at base that are marks for what they are.
func findMarks(blocks, base, set reg.Register) {
	MOVQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: blockJumps}, set)
	for _, at := range []int{blockExits, blockSeconds, blockPoints} {
		ORQ(Mem{Base: blocks, Index: base, Scale: 1, Disp: at}, set)
	}
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
	TEXT("mendAVO", NOSPLIT, "func(p, s, jumps *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("mendAVO sets the distances of the jumps in the blocks from p.block up to p.stop. Jumps is",
		"the word of the first block that says which. It stops at a block with one that leads further",
		"than is known, or too far.")
	job := GP64()
	insns, jumps, index, moved := GP64(), GP64(), GP64(), GP64()
	n, set, base := GP64(), GP64(), GP64()
	Load(Param("p"), job)
	Load(Param("s"), set)
	load(set, field{surveyProgram, insns})
	Load(Param("jumps"), jumps)
	MOVQ(Mem{Base: insns, Disp: programInsns}, insns)
	load(job, field{patchIndex, index}, field{patchMoved, moved},
		field{patchBlock, base}, field{patchKnown, n})
	Comment("Blocks are as many bytes as slots.")
	SHLQ(U8(6), base)
	stop := AllocLocal(8)
	MOVQ(Mem{Base: job, Disp: patchStop}, set)
	SHLQ(U8(6), set)
	MOVQ(set, stop)
	Label("block")
	CMPQ(base, stop)
	JGE(LabelRef("out"))
	MOVQ(Mem{Base: jumps, Index: base, Scale: 1}, set)
	TESTQ(set, set)
	JEQ(LabelRef("empty"))

	Label("jump")
	Comment("moved[index[slot+1]-1].off = index[slot+1+off] - index[slot+1]")
	slot, to, at, d, short := GP64(), GP64(), GP64(), GP64(), GP64()
	jump(insns, base, set, slot, to)
	CMPQ(to, n)
	JAE(LabelRef("out"))
	MOVL(Mem{Base: index, Index: slot, Scale: 4, Disp: 4}, at.As32())
	MOVL(Mem{Base: index, Index: to, Scale: 4}, d.As32())
	SUBL(at.As32(), d.As32())
	MOVWLSX(d.As16(), short.As32())
	CMPL(short.As32(), d.As32())
	JNE(LabelRef("out"))
	MOVW(d.As16(), Mem{Base: moved, Index: at, Scale: 8, Disp: insnOff - 8})
	nextJump(set, base, to, at, jumps)
	TESTQ(set, set)
	JEQ(LabelRef("block"))
	CMPQ(base, stop)
	JLT(LabelRef("jump"))
	JMP(LabelRef("out"))
	Label("empty")
	ADDQ(U8(blockSize), base)
	JMP(LabelRef("block"))
	Label("out")
	SHRQ(U8(6), base)
	MOVQ(base, Mem{Base: job, Disp: patchBlock})
	RET()
}

// nextJump goes from one jump of a set, the word of the block at base, to the next one, or
// to the next block where it was the last: the flags say "equal" then. Words that say
// where jumps are stand a block's size apart, the first at words, and one more can be read
// than there are blocks. There is no branch: how many jumps a block has can't be foreseen.
func nextJump(set, base, behind, next, words reg.GPVirtual) {
	LEAQ(Mem{Base: base, Disp: blockSize}, behind)
	MOVQ(Mem{Base: words, Index: behind, Scale: 1}, next)
	BLSRQ(set, set)
	CMOVQEQ(behind, base)
	CMOVQEQ(next, set)
}
