// Command bpf generates the assembly of package bpf: what is known of a slot
// by its bits, of 32 slots at a time, and walks over the jumps of a program.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into bpf.block, whose size is blockSize, bpf.places and bpf.refusal.
// A test pins them, and those below, to the structs.
const (
	blockJumps    = 0
	blockBack     = 8
	blockExits    = 16
	blockSeconds  = 24
	blockOthers   = 32
	blockSuspects = 40
	blockPoints   = 48
	blockLeast    = 56
	blockMost     = 60
	blockSize     = 64

	placesJumps  = 0
	placesOthers = 64
	placesSource = 128

	refusalConstants = 0
	refusalRegisters = 64
	refusalKnown     = 128
	refusalLast      = 192

	nibblesHigh = 0
	nibblesLow  = 32
)

// Offsets into bpf.charger, bpf.flow, bpf.patcher, bpf.Charge and bpf.Patch.
const (
	chargeInsns   = 0
	chargeSlots   = 8 // the length of insns
	chargeBlocks  = 24
	chargeMarks   = 48
	chargeLengths = 72
	chargeBase    = 96
	chargeAt      = 104
	chargeStop    = 112
	chargeLength  = 120
	chargeCharges = 128
	chargeLeft    = 152

	flowGoesOn = 0
	flowLeads  = 4
	flowCounts = 8

	patchIndex   = 0
	patchInsns   = 56
	patchSlots   = 64 // the length of insns
	patchMoved   = 80
	patchRoom    = 88 // the length of moved
	patchFlags   = 104
	patchBlocks  = 128
	patchSlot    = 152
	patchAt      = 160
	patchNext    = 168
	patchBlock   = 176
	patchStop    = 184
	patchKnown   = 192
	patchPatches = 200
	patchCount   = 208 // the length of patches
	patchCharges = 224
	patchPatch   = 248
	patchCharge  = 256
	patchBegun   = 264
	patchFirst   = 272

	aChargeSlot = 0
	aChargeN    = 4
	aChargeSize = 8

	aPatchSlot  = 0
	aPatchOwn   = 8
	aPatchInsns = 16
	aPatchCount = 24 // the length of insns
	aPatchSize  = 40
)

// Bits of a refusal.
const (
	noImm      = 0x0f
	noOff      = 0x30
	noSrc      = 0xc0
	noDst      = 0x03
	dstWritten = 0x0c
	frame      = 0x10
	frameSrc   = 0x20
	widths     = 0x40
	swapping   = 0x80
)

// Numbers of abi and bpf.
const (
	insnOff    = 2
	opExit     = 0x95
	opLdImm64  = 0x18
	opCharge   = 0xf6
	anyway     = 2
	insnImm    = 4
	r10        = 10
	frameBytes = 512
	frameSpan  = 504
	inserted   = 1
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	survey()
	check()
	charge()
	place()
	mend()
	follow()
	Generate()
}

// A vector is 32 bytes, one of each slot, in order.
type vector = reg.VecVirtual

// wide makes a constant of four 64-bit words, or finds the one that it has made
// before.
func wide(name string, word uint64) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(word))
	}
	made[name] = m
	return m
}

var made = map[string]Mem{}

// eachByte and eachWord make constants of the same number over and over.
func eachByte(name string, b uint8) Mem  { return wide(name, uint64(b)*0x0101010101010101) }
func eachWord(name string, w uint16) Mem { return wide(name, uint64(w)*0x0001000100010001) }

// half is what the code works on: 32 slots of a block.
type half struct {
	insns, block, places reg.GPVirtual
	zero                 vector
	words, offs          [2]vector // op and regs, off; 16 slots each
	imms                 vector    // what doesn't fit a byte is the most or least that does
	ops, high, low       vector    // opcodes, and their halves
	dst, src             vector
}

// ahead is by how many bytes fetching is ahead of what looks at slots. Fetching from
// behind the end of memory does nothing.
const ahead = 1024

// load takes 32 slots apart, with their imms or without.
func (h *half) load(withImms bool) {
	var longs, imms [4]vector
	a, b := YMM(), YMM()
	Comment("What follows: a program that is looked at for the first time is in no cache.")
	for k := range 4 {
		PREFETCHT0(Mem{Base: h.insns, Disp: ahead + 64*k})
	}
	for k := range 4 {
		Comment(fmt.Sprintf("Slots %d to %d, and those 16 further", 4*k, 4*k+3))
		at := func(slot int) Mem { return Mem{Base: h.insns, Disp: 8 * (4*k + slot)} }
		VMOVDQU(at(0), a.AsX())
		VINSERTI128(U8(1), at(16), a, a)
		VMOVDQU(at(2), b.AsX())
		VINSERTI128(U8(1), at(18), b, b)
		longs[k] = YMM()
		VSHUFPS(U8(0x88), b, a, longs[k])
		if withImms {
			imms[k] = YMM()
			VSHUFPS(U8(0xdd), b, a, imms[k])
		}
	}
	if withImms {
		VPACKSSDW(imms[1], imms[0], imms[0])
		VPACKSSDW(imms[3], imms[2], imms[2])
		VPACKSSWB(imms[2], imms[0], imms[0])
		h.imms = imms[0]
	}
	Comment("Words of op and regs, and of off")
	lowWord := wide("lowWord", 0xffff_0000_ffff)
	for k := range 2 {
		h.words[k], h.offs[k] = YMM(), YMM()
		lower, upper := longs[2*k], longs[2*k+1]
		VPSRAD(U8(16), lower, h.offs[k])
		VPSRAD(U8(16), upper, a)
		VPACKSSDW(a, h.offs[k], h.offs[k])
		VPAND(lowWord, lower, lower)
		VPAND(lowWord, upper, upper)
		VPACKUSDW(upper, lower, h.words[k])
	}
	Comment("Opcodes and their halves; registers")
	lowByte, nibble := eachWord("lowByte", 0xff), eachByte("nibble", 0x0f)
	h.ops, h.high, h.low, h.dst, h.src = YMM(), YMM(), YMM(), YMM(), YMM()
	VPAND(lowByte, h.words[0], h.ops)
	VPAND(lowByte, h.words[1], a)
	VPACKUSWB(a, h.ops, h.ops)
	VPSRLW(U8(4), h.ops, h.high)
	VPAND(nibble, h.high, h.high)
	VPAND(nibble, h.ops, h.low)
	VPSRLW(U8(8), h.words[0], h.dst)
	VPSRLW(U8(8), h.words[1], a)
	VPACKUSWB(a, h.dst, h.dst)
	VPSRLW(U8(4), h.dst, h.src)
	VPAND(nibble, h.src, h.src)
}

// pack makes bytes of words, where too much becomes the most.
func (h *half) pack(words [2]vector) vector {
	v := YMM()
	VPACKSSWB(words[1], words[0], v)
	return v
}

// lookUp returns what nibbles have of the opcodes.
func (h *half) lookUp(table reg.Register, at int) vector {
	v, t := YMM(), YMM()
	VMOVDQU(Mem{Base: table, Disp: at + nibblesHigh}, v)
	VPSHUFB(h.high, v, v)
	VMOVDQU(Mem{Base: table, Disp: at + nibblesLow}, t)
	VPSHUFB(h.low, t, t)
	VPAND(t, v, v)
	return v
}

// put writes the upper bits of bytes, or what they are not.
func (h *half) put(v vector, at int, not bool) {
	t := GP32()
	VPMOVMSKB(v, t)
	if not {
		NOTL(t)
	}
	MOVL(t, Mem{Base: h.block, Disp: at})
}

// findPlaces writes all words but suspects.
func (h *half) findPlaces() {
	t := YMM()
	for _, w := range []struct {
		op, at int
		name   string
	}{{opExit, blockExits, "exit"}, {0, blockSeconds, ""}} {
		if w.op == 0 {
			VPCMPEQB(h.zero, h.ops, t)
		} else {
			VPCMPEQB(eachByte(w.name, uint8(w.op)), h.ops, t)
		}
		h.put(t, w.at, false)
	}
	Comment("Jumps, and those whose off is negative; points are found later.")
	other := h.lookUp(h.places, placesJumps)
	VPCMPEQB(h.zero, other, other)
	h.put(other, blockJumps, true)
	VPANDN(h.pack(h.offs), other, t)
	h.put(t, blockBack, false)
	MOVL(U32(0), Mem{Base: h.block, Disp: blockPoints})
	Comment("Others")
	other = h.lookUp(h.places, placesOthers)
	VMOVDQU(Mem{Base: h.places, Disp: placesSource}, t)
	VPSHUFB(h.src, t, t)
	VPAND(t, other, other)
	VPCMPEQB(h.zero, other, other)
	h.put(other, blockOthers, true)
}

// findSuspects writes suspects. second is 1 if a second half of a constant
// should come next; it is set for the slots behind.
func (h *half) findSuspects(refusal, second reg.GPVirtual) {
	facts, t := YMM(), YMM()
	dst, src := h.dst, h.src

	Comment("What the constants of the slots have that the opcodes must not: where imm, off or",
		"src isn't 0")
	rule := func(name string, b uint8) Mem { return eachByte(name, b) }
	VPCMPEQB(h.zero, h.imms, t)
	VPANDN(rule("noImm", noImm), t, facts)
	words := [2]vector{YMM(), YMM()}
	VPCMPEQW(h.zero, h.offs[0], words[0])
	VPCMPEQW(h.zero, h.offs[1], words[1])
	VPANDN(rule("noOff", noOff), h.pack(words), t)
	VPOR(t, facts, facts)
	VPCMPEQB(h.zero, src, t)
	VPANDN(rule("noSrc", noSrc), t, t)
	VPOR(t, facts, facts)
	bad := h.lookUp(refusal, refusalConstants)
	VPAND(facts, bad, bad)

	Comment("The same of registers: where dst isn't 0, is R10, or it or src is and off isn't in",
		"the frame")
	VPAND(eachByte("nibble", 0x0f), dst, dst)
	VPCMPEQB(h.zero, dst, t)
	VPANDN(rule("noDst", noDst), t, facts)
	isFrame := YMM()
	VPCMPEQB(eachByte("r10", r10), dst, isFrame)
	VPAND(rule("dstWritten", dstWritten), isFrame, t)
	VPOR(t, facts, facts)
	for k := range 2 {
		VPADDW(eachWord("frameBytes", frameBytes), h.offs[k], h.offs[k])
		VPSUBUSW(eachWord("frameSpan", frameSpan), h.offs[k], h.offs[k])
		VPCMPEQW(h.zero, h.offs[k], h.offs[k])
	}
	inside := h.pack(h.offs)
	VPANDN(isFrame, inside, t)
	VPAND(rule("frame", frame), t, t)
	VPOR(t, facts, facts)
	VPCMPEQB(eachByte("r10", r10), src, isFrame)
	VPANDN(isFrame, inside, t)
	VPAND(rule("frameSrc", frameSrc), t, t)
	VPOR(t, facts, facts)
	Comment("And where imm isn't 16, 32 or 64")
	width := func(n uint8, to vector) { VPCMPEQB(eachByte(fmt.Sprint("width", n), n), h.imms, to) }
	width(16, isFrame)
	for _, n := range []uint8{32, 64} {
		width(n, t)
		VPOR(t, isFrame, isFrame)
	}
	VPANDN(rule("widths", widths), isFrame, t)
	VPOR(t, facts, facts)
	found, swaps := h.lookUp(refusal, refusalRegisters), YMM()
	VPAND(rule("swapping", swapping), found, swaps)
	VPAND(facts, found, found)
	VPOR(found, bad, bad)

	Comment("Registers that don't exist")
	VPMAXUB(dst, src, t)
	VPSUBUSB(Mem{Base: refusal, Disp: refusalLast}, t, t)
	VPOR(t, bad, bad)
	VPCMPEQB(h.zero, bad, bad)
	Comment("Opcodes that aren't known")
	known := h.lookUp(refusal, refusalKnown)
	VPOR(swaps, known, known)
	VPCMPEQB(h.zero, known, known)
	VPANDN(bad, known, bad)
	Comment("Second halves behind anything but first halves, and the reverse")
	firsts, seconds := GP32(), GP32()
	VPCMPEQB(eachByte("ldimm64", opLdImm64), h.ops, t)
	VPMOVMSKB(t, firsts)
	VPCMPEQB(h.zero, h.ops, t)
	VPMOVMSKB(t, seconds)
	LEAL(Mem{Base: second, Index: firsts.As64(), Scale: 2}, second.As32())
	XORL(second.As32(), seconds)
	MOVL(firsts, second.As32())
	SHRL(U8(31), second.As32())
	VPMOVMSKB(bad, firsts)
	NOTL(firsts)
	ORL(seconds, firsts)
	MOVL(firsts, Mem{Base: h.block, Disp: blockSuspects})
}

// loop makes the body for n slots, 32 at a time: half a block, whose words it writes
// by halves, too. What is left at the end are the last slots of 32, of which the first
// are forgotten.
//
//	slots   |<- 32 ->|<- 32 ->|<- n ->|
//	                      |<-- 32  -->|
//	bits                  |   >> 32-n |
func loop(h *half, body func()) {
	n := GP64()
	h.insns, h.block, h.places = GP64(), GP64(), GP64()
	Load(Param("insns"), h.insns)
	Load(Param("blocks"), h.block)
	Load(Param("n"), n)
	Load(Param("p"), h.places)
	h.zero = YMM()
	VPXOR(h.zero, h.zero, h.zero)
	step := GP64()
	Comment("It is 4 bytes to the second half of a block's words, and to the next block the rest.")
	MOVQ(U32(4), step)
	CMPQ(n, U8(32))
	JLT(LabelRef("rest"))

	Label("half")
	body()
	ADDQ(U32(32*8), h.insns)
	SUBQ(U8(32), n)
	JLT(LabelRef("forget"))
	Label("next")
	ADDQ(step, h.block)
	XORQ(U8(4^(blockSize-4)), step)
	CMPQ(n, U8(32))
	JGE(LabelRef("half"))
	TESTQ(n, n)
	JEQ(LabelRef("end"))
	Label("rest")
	LEAQ(Mem{Base: h.insns, Index: n, Scale: 8, Disp: -32 * 8}, h.insns)
	JMP(LabelRef("half"))

	Label("forget")
	words := []int{blockJumps, blockBack, blockExits, blockSeconds, blockOthers, blockSuspects}
	NEGQ(n)
	word := GP32()
	for _, at := range words {
		SHRXL(n.As32(), Mem{Base: h.block, Disp: at}, word)
		MOVL(word, Mem{Base: h.block, Disp: at})
	}
	XORL(n.As32(), n.As32())
	JMP(LabelRef("next"))

	Label("end")
	Comment("There may be no second half.")
	CMPQ(step, U8(4))
	JEQ(LabelRef("out"))
	for _, at := range append(words, blockPoints) {
		MOVL(n.As32(), Mem{Base: h.block, Disp: at})
	}
	Label("out")
	VZEROUPPER()
	RET()
}

func survey() {
	TEXT("surveyAVO", NOSPLIT, "func(insns, blocks *uint64, n int, p *uint64)")
	Pragma("noescape")
	Doc("surveyAVO fills in blocks of n slots, but for suspects. There are at least 32, some of which",
		"may be in front of insns.")
	h := new(half)
	loop(h, func() {
		h.load(false)
		h.findPlaces()
	})
}

func check() {
	TEXT("checkAVO", NOSPLIT, "func(insns, blocks *uint64, n int, p, r *uint64, half bool)")
	Pragma("noescape")
	Doc("checkAVO does the same, with suspects. half says whether a first half of a constant stands",
		"in front.")
	h := new(half)
	refusal, second := GP64(), GP64()
	Load(Param("r"), refusal)
	Load(Param("half"), second.As8())
	MOVBLZX(second.As8(), second.As32())
	loop(h, func() {
		h.load(true)
		h.findPlaces()
		h.findSuspects(refusal, second)
	})
}
