package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// surveyor is what surveyAVO works with. Blocks are as many bytes as slots.
type surveyor struct {
	job, insns, blocks reg.GPVirtual
	base, end          reg.GPVirtual // the first slot of a block, and where blocks end
	looked             Mem           // where those end that are looked at
}

// looker is what it looks at slots with.
type looker struct {
	half
	suspicion
	last      reg.GPVirtual // the last 32 slots
	n         reg.GPVirtual // where slots end
	step      reg.GPVirtual // from a half of a block to the next one
	forgotten reg.GPVirtual // how many slots are; -1 if there are less than 32
	suspects  reg.GPVirtual // of all
}

func survey() {
	TEXT("surveyAVO", NOSPLIT, "func(s, p, r *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("surveyAVO does what Survey.part does. There is room for all others that there may be.")
	s := &surveyor{GP64(), GP64(), GP64(), GP64(), GP64(), AllocLocal(8)}
	l := s.look()
	s.list(l.suspects)
	s.follow()
	RET()
	l.pad()
	Label("outside")
	MOVL(U32(1), s.end.As32())
	MOVB(s.end.As8(), s.field(surveyAstray))
	RET()
}

func (s *surveyor) field(at int) Mem { return Mem{Base: s.job, Disp: at} }

// word is one of the block at base.
func (s *surveyor) word(at int) Mem {
	return Mem{Base: s.blocks, Index: s.base, Scale: 1, Disp: at}
}

// begin loads what a step works on.
func (s *surveyor) begin() {
	Load(Param("s"), s.job)
	load(s.job, field{surveyProgram, s.insns}, field{surveyBlocks, s.blocks})
	MOVQ(Mem{Base: s.insns, Disp: programInsns}, s.insns)
}

// words are those of a block that tell what its slots are.
var words = []int{blockJumps, blockBack, blockExits, blockSeconds, blockOthers, blockSuspects}

// look looks at the slots of the next blocks, 32 at a time: half a block, whose words it
// writes by halves, too. What is left at the end are the last slots of 32, of which the
// first are forgotten.
//
//	slots   |<- 32 ->|<- 32 ->|<-  ->|
//	                     |<-- 32  -->|
//	                     last
//	bits                 | >> forgotten
func (s *surveyor) look() *looker {
	l := &looker{last: GP64(), n: GP64(), step: GP64(), forgotten: GP64(), suspects: GP64()}
	t := GP64()
	s.begin()
	load(s.job, field{surveyLooked, s.base}, field{surveyLength, s.end}, field{surveySlots, l.n})
	SHLQ(U8(6), s.base)
	SHLQ(U8(6), s.end)
	LEAQ(Mem{Base: s.base, Disp: chunk * blockSize}, t)
	CMPQ(t, s.end)
	CMOVQLT(t, s.end)
	CMPQ(s.base, s.end)
	JGE(LabelRef("follow"))
	MOVQ(s.end, s.looked)
	l.insns, l.block, l.zero, l.source = GP64(), GP64(), YMM(), YMM()
	VPXOR(l.zero, l.zero, l.zero)
	Comment("There may be no second half of the last block.")
	for i := range 2 {
		VMOVDQU(l.zero, Mem{Base: s.blocks, Index: s.end, Scale: 1, Disp: 32*i - blockSize})
	}
	CMPQ(l.n, s.end)
	CMOVQGT(s.end, l.n)
	LEAQ(Mem{Base: s.blocks, Index: s.base, Scale: 1}, l.block)
	LEAQ(Mem{Base: s.insns, Index: s.base, Scale: 8}, l.insns)
	LEAQ(Mem{Base: s.insns, Index: l.n, Scale: 8, Disp: -32 * 8}, l.last)
	l.suspicion = newSuspicion()
	XORL(l.suspects.As32(), l.suspects.As32())
	XORL(l.forgotten.As32(), l.forgotten.As32())
	l.places = Load(Param("p"), GP64()).(reg.GPVirtual)
	VMOVDQU(Mem{Base: l.places, Disp: placesSource}, l.source)
	Comment("It is 4 bytes to the second half of a block's words, and to the next block the rest.")
	MOVL(U32(4), l.step.As32())
	CMPQ(l.n, U8(32))
	JLT(LabelRef("short"))
	TESTQ(s.base, s.base)
	JEQ(LabelRef("half"))
	l.expect(&l.half)
	CMPQ(l.insns, l.last)
	JHI(LabelRef("rest"))

	Label("half")
	l.load()
	l.findPlaces()
	found := l.find(&l.half)
	ORL(found, l.suspects.As32())
	ADDQ(U32(32*8), l.insns)
	ADDQ(l.step, l.block)
	XORQ(U8(4^(blockSize-4)), l.step)
	CMPQ(l.insns, l.last)
	JLS(LabelRef("half"))
	Label("rest")
	MOVQ(l.insns, t)
	SUBQ(l.last, t)
	SHRL(U8(3), t.As32())
	CMPL(t.As32(), U8(32))
	JEQ(LabelRef("end"))
	MOVL(t.As32(), l.forgotten.As32())
	MOVQ(l.last, l.insns)
	l.expect(&l.half)
	JMP(LabelRef("half"))

	Label("end")
	VZEROUPPER()
	TESTL(l.forgotten.As32(), l.forgotten.As32())
	JEQ(LabelRef("looked"))
	JLT(LabelRef("padded"))
	for _, at := range words {
		SHRXL(l.forgotten.As32(), l.word(at), t.As32())
		MOVL(t.As32(), l.word(at))
	}
	Label("looked")
	return l
}

// word is half of a word, the last that was written.
func (l *looker) word(at int) Mem {
	return Mem{Base: l.block, Index: l.step, Scale: 1, Disp: at - blockSize}
}

// pad is for a program that is shorter than what is looked at: a copy is looked at, and
// what is behind is forgotten. It is copied in the pieces that are read, since what was
// written otherwise can't be read at once.
func (l *looker) pad() {
	copied, at, end, slots := AllocLocal(32*8), GP64(), l.last, XMM()
	Label("short")
	LEAQ(copied, at)
	LEAQ(Mem{Base: at, Index: l.n, Scale: 8, Disp: -8}, end)
	JMP(LabelRef("pair"))
	Label("pairs")
	VMOVDQU(Mem{Base: l.insns}, slots)
	VMOVDQU(slots, Mem{Base: at})
	ADDQ(U8(16), l.insns)
	ADDQ(U8(16), at)
	Label("pair")
	CMPQ(at, end)
	JCS(LabelRef("pairs"))
	JNE(LabelRef("copied"))
	VMOVQ(Mem{Base: l.insns}, slots)
	VMOVDQU(slots, Mem{Base: at})
	Label("copied")
	LEAQ(copied, l.insns)
	MOVQ(l.insns, l.last)
	MOVQ(I32(-1), l.forgotten)
	JMP(LabelRef("half"))

	Label("padded")
	for _, at := range words {
		BZHIL(l.n.As32(), l.word(at), l.suspects.As32())
		MOVL(l.suspects.As32(), l.word(at))
	}
	JMP(LabelRef("looked"))
}

// list lists the others of the blocks that were looked at.
func (s *surveyor) list(suspects reg.GPVirtual) {
	s.begin()
	TESTL(suspects.As32(), suspects.As32())
	SETNE(s.field(surveySuspects))
	set, slot, in, t := GP64(), GP64(), GP64(), GP64()
	other, listed, kinds, places := GP64(), GP64(), GP64(), GP64()
	load(s.job, field{surveyLooked, s.base}, field{surveyOthers, other}, field{surveyListed, listed})
	MOVBLZX(s.field(surveyKinds), kinds.As32())
	Load(Param("p"), places)
	SHLQ(U8(6), s.base)
	LEAQ(Mem{Base: listed, Index: listed, Scale: 2}, t)
	LEAQ(Mem{Base: other, Index: t, Scale: anOtherSize / 3}, other)
	Label("list")
	MOVQ(s.word(blockOthers), set)
	TESTQ(set, set)
	JEQ(LabelRef("listed"))
	Label("other")
	TZCNTQ(set, slot)
	ADDQ(s.base, slot)
	MOVQ(Mem{Base: s.insns, Index: slot, Scale: 8}, in)
	MOVL(slot.As32(), Mem{Base: other})
	MOVQ(in, Mem{Base: other, Disp: anOtherInsn})
	MOVBLZX(in.As8(), in.As32())
	ORB(Mem{Base: places, Index: in, Scale: 1, Disp: placesKinds}, kinds.As8())
	ADDQ(U8(anOtherSize), other)
	INCQ(listed)
	BLSRQ(set, set)
	JNE(LabelRef("other"))
	Label("listed")
	ADDQ(U8(64), s.base)
	CMPQ(s.base, s.looked)
	JLT(LabelRef("list"))
	SHRQ(U8(6), s.base)
	MOVQ(s.base, s.field(surveyLooked))
	MOVQ(listed, s.field(surveyListed))
	MOVB(kinds.As8(), s.field(surveyKinds))
}

// follow follows the jumps of the next blocks, a chunk at most: it sets least and most,
// and the points that jumps back lead to. One is astray that leads to a second half of a
// constant, or out of the program: there it stops.
func (s *surveyor) follow() {
	Label("follow")
	wrong, set, slot, to := GP64(), GP64(), GP64(), GP64()
	word, least, most, n := GP64(), GP64(), GP64(), GP64()
	Comment("If not all is looked at, following stays behind.")
	load(s.job, field{surveyLooked, s.end}, field{surveyLanded, s.base})
	CMPQ(s.end, s.field(surveyLength))
	JEQ(LabelRef("all"))
	SUBQ(U32(lag), s.end)
	Label("all")
	LEAQ(Mem{Base: s.base, Disp: chunk}, to)
	CMPQ(to, s.end)
	CMOVQLT(to, s.end)
	CMPQ(s.base, s.end)
	JGE(LabelRef("out"))
	MOVQ(s.end, s.field(surveyLanded))
	Comment("None is followed after one that is astray.")
	CMPB(s.field(surveyAstray), U8(0))
	JNE(LabelRef("out"))
	SHLQ(U8(6), s.base)
	SHLQ(U8(6), s.end)
	MOVQ(s.field(surveySlots), n)
	XORL(wrong.As32(), wrong.As32())
	noLeast, noMost := row("noLeast", math.MaxInt32, 0), row("noMost", -1, 0)

	Comment("A block, of which there may be none or whose jumps may be none.")
	Label("block")
	CMPQ(s.base, s.end)
	JGE(LabelRef("followed"))
	MOVL(noLeast, least.As32())
	MOVL(noMost, most.As32())
	MOVL(least.As32(), s.word(blockLeast))
	MOVL(most.As32(), s.word(blockMost))
	MOVQ(s.word(blockJumps), set)
	TESTQ(set, set)
	JEQ(LabelRef("empty"))

	Label("jump")
	jump(s.insns, s.base, set, slot, to)
	CMPQ(to, n)
	JAE(LabelRef("outside"))
	Comment("most = max(most, to); least = min(least, to) if it leads back")
	CMPL(to.As32(), most.As32())
	CMOVLGT(to.As32(), most.As32())
	CMPQ(slot, to)
	SBBQ(slot, slot)
	Comment("slot = -1 if it leads ahead, or 0")
	MOVQ(slot, word)
	SHRQ(U8(33), word)
	ORL(to.As32(), word.As32())
	CMPL(word.As32(), least.As32())
	CMOVLLT(word.As32(), least.As32())
	MOVL(least.As32(), s.word(blockLeast))
	MOVL(most.As32(), s.word(blockMost))
	Comment("Bit to%64 of the points of block to/64 if it leads back, and of its seconds, among others.",
		"Nobody should change the program meanwhile; but points are written.")
	INCQ(slot)
	SHLXQ(to, slot, slot)
	MOVQ(to, word)
	ANDQ(I8(-64), word)
	ORQ(slot, Mem{Base: s.blocks, Index: word, Scale: 1, Disp: blockPoints})
	SHRXQ(to, Mem{Base: s.blocks, Index: word, Scale: 1, Disp: blockSeconds}, to)
	ORL(to.As32(), wrong.As32())
	nextJump(set, s.base, to, slot, s.blocks)
	Comment("Which of them is the last one of its block can't be foreseen.")
	CMOVLEQ(noLeast, least.As32())
	CMOVLEQ(noMost, most.As32())
	TESTQ(set, set)
	JEQ(LabelRef("block"))
	CMPQ(s.base, s.end)
	JLT(LabelRef("jump"))
	Label("followed")
	ANDL(U8(1), wrong.As32())
	MOVB(wrong.As8(), s.field(surveyAstray))
	JMP(LabelRef("out"))
	Label("empty")
	ADDQ(U8(blockSize), s.base)
	JMP(LabelRef("block"))
	Label("out")
}
