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

	placesOps    = 0
	placesSource = 64
	placesKinds  = 96

	refusalConstants = 0
	refusalRegisters = 64
	refusalKnown     = 128
	refusalLast      = 192

	nibblesHigh = 0
	nibblesLow  = 32
)

// Offsets into bpf.Survey, bpf.Program, bpf.charger, bpf.flow, bpf.patcher, bpf.Charge
// and bpf.Patch.
const (
	surveyProgram  = 0
	surveySlots    = 8
	surveyBlocks   = 16
	surveyLength   = 24 // of blocks
	surveyOthers   = 40
	surveyListed   = 48 // the length of others
	surveyLooked   = 64
	surveyLanded   = 72
	surveyKinds    = 80
	surveyAstray   = 81
	surveySuspects = 82
	surveyCharger  = 240

	anOtherInsn = 4
	anOtherSize = 12

	programInsns = 0

	chargeMarks   = 0
	chargeLengths = 24
	chargeBase    = 48
	chargeAt      = 56
	chargeStop    = 64
	chargeLength  = 72
	chargeCharges = 80
	chargeLeft    = 104

	flowGoesOn = 0
	flowLeads  = 4
	flowCounts = 8

	patchIndex   = 0
	patchMoved   = 56
	patchRoom    = 80
	patchFlags   = 88
	patchSlot    = 112
	patchAt      = 120
	patchPatch   = 128
	patchCharge  = 136
	patchBlock   = 144
	patchFirst   = 152
	patchBegun   = 160
	patchNext    = 168
	patchStop    = 176
	patchKnown   = 184
	patchPatches = 192
	patchCount   = 200 // the length of patches
	patchCharges = 216

	aChargeSlot = 0
	aChargeN    = 4
	aChargeSize = 8

	aPatchSlot  = 0
	aPatchOwn   = 8
	aPatchInsns = 16
	aPatchCount = 24 // the length of insns
	aPatchSize  = 40
)

// The lowest of the bits of places that are jumps.
const jumpBits = 0x40

// Bits of a refusal.
const (
	noImm      = 0x0f
	noOff      = 0x30
	widths     = 0x40
	noDst      = 0x03
	noSrc      = 0x0c
	dstWritten = 0x30
	frame      = 0x40
	frameSrc   = 0x80
)

// Numbers of abi and bpf.
const (
	insnOff   = 2
	insnImm   = 4
	opExit    = 0x95
	opLdImm64 = 0x18
	opCharge  = 0xf6
	r10       = 10
	frameSpan = 504
	inserted  = 1
	anyway    = 2
	reachOff  = 1
	chunk     = 64
	lag       = 576
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	survey()
	charge()
	place()
	mend()
	mendSlots()
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

// eachByte makes a constant of the same byte over and over.
func eachByte(name string, b uint8) Mem { return wide(name, uint64(b)*0x0101010101010101) }

// table makes a constant of 16 bytes, twice, for either half of a vector.
func table(name string, of func(i int) uint8) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 32 {
		DATA(i, U8(of(i%16)))
	}
	made[name] = m
	return m
}

// half is what the code works on: 32 slots of a block.
type half struct {
	insns, block, places reg.GPVirtual
	zero, source         vector
	ops, high, low       vector // opcodes, and their halves
	dst, src             vector
	offLow, offHigh      vector
	imms                 vector        // what doesn't fit a byte is the most or least that does
	seconds              reg.GPVirtual // bits of second halves
}

// ahead is by how many bytes fetching is ahead of what looks at slots. Fetching from
// behind the end of memory does nothing.
const ahead = 1024

// load takes 32 slots apart.
func (h *half) load() {
	var longs, imms [4]vector
	a, b := YMM(), YMM()
	Comment("What follows: a program that is looked at for the first time is in no cache.")
	for k := range 4 {
		PREFETCHT0(Mem{Base: h.insns, Disp: ahead + 64*k})
	}
	// Four slots: their opcodes, regs, and lower and upper bytes of off.
	planes := table("planes", func(i int) uint8 { return uint8(i%4*4 + i/4) })
	// Broadcasting, which costs nothing, sets the whole register: else the allocator would
	// keep its upper half.
	for k := range 4 {
		Comment(fmt.Sprintf("Slots %d to %d, and those 16 further", 4*k, 4*k+3))
		at := func(slot int) Mem { return Mem{Base: h.insns, Disp: 8 * (4*k + slot)} }
		VBROADCASTI128(at(0), a)
		VINSERTI128(U8(1), at(16), a, a)
		VBROADCASTI128(at(2), b)
		VINSERTI128(U8(1), at(18), b, b)
		longs[k] = YMM()
		VSHUFPS(U8(0x88), b, a, longs[k])
		VPSHUFB(planes, longs[k], longs[k])
		imms[k] = YMM()
		VSHUFPS(U8(0xdd), b, a, imms[k])
		if k%2 == 1 {
			VPACKSSDW(imms[k], imms[k-1], imms[k-1])
		}
	}
	VPACKSSWB(imms[2], imms[0], imms[0])
	h.imms = imms[0]
	Comment("Of all 32: opcodes, regs, offs")
	h.ops, h.dst, h.offLow, h.offHigh = YMM(), YMM(), YMM(), YMM()
	h.high, h.low, h.src = YMM(), YMM(), YMM()
	upper, offs := YMM(), YMM()
	VPUNPCKLDQ(longs[1], longs[0], a)
	VPUNPCKLDQ(longs[3], longs[2], b)
	VPUNPCKLQDQ(b, a, h.ops)
	VPUNPCKHQDQ(b, a, h.dst)
	VPUNPCKHDQ(longs[1], longs[0], offs)
	VPUNPCKHDQ(longs[3], longs[2], upper)
	VPUNPCKLQDQ(upper, offs, h.offLow)
	VPUNPCKHQDQ(upper, offs, h.offHigh)
	Comment("Halves of opcodes and of regs")
	nibble := eachByte("nibble", 0x0f)
	VPSRLW(U8(4), h.ops, h.high)
	VPAND(nibble, h.high, h.high)
	VPAND(nibble, h.ops, h.low)
	VPSRLW(U8(4), h.dst, h.src)
	VPAND(nibble, h.src, h.src)
	VPAND(nibble, h.dst, h.dst)
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

// put writes the upper bits of bytes, and returns them.
func (h *half) put(v vector, at int) reg.GPVirtual {
	t := GP32()
	VPMOVMSKB(v, t)
	MOVL(t, Mem{Base: h.block, Disp: at})
	return t
}

// upper sets the upper bits of bytes that are from on or more. Those that aren't
// keep 0 there.
func upper(from uint8, v, to vector) {
	VPADDUSB(eachByte(fmt.Sprint("from", from), 0x80-from), v, to)
}

// findPlaces writes all words but suspects.
func (h *half) findPlaces() {
	t := YMM()
	VPCMPEQB(eachByte("exit", opExit), h.ops, t)
	h.put(t, blockExits)
	VPCMPEQB(h.zero, h.ops, t)
	h.seconds = h.put(t, blockSeconds)
	Comment("Jumps, and those whose off is negative; points are found later.")
	places := h.lookUp(h.places, placesOps)
	upper(jumpBits, places, t)
	h.put(t, blockJumps)
	VPAND(h.offHigh, t, t)
	h.put(t, blockBack)
	MOVL(U32(0), Mem{Base: h.block, Disp: blockPoints})
	Comment("Others")
	VPSHUFB(h.src, h.source, t)
	VPAND(t, places, places)
	upper(1, places, places)
	h.put(places, blockOthers)
}

// A suspicion is what finds suspects.
type suspicion struct {
	refusal reg.GPVirtual
	// second is 1 if a second half of a constant should come next.
	second   reg.GPVirtual
	dst, src vector // what a register has that opcodes must not, as dst and as src
	// What an imm doesn't have of what opcodes must not have, as far as the lower and the
	// upper half of the byte tell.
	immLow, immHigh vector
}

func newSuspicion() suspicion {
	s := suspicion{Load(Param("r"), GP64()).(reg.GPVirtual), GP64(), YMM(), YMM(), YMM(), YMM()}
	register := func(not0, isR10 uint8) func(r int) uint8 {
		return func(r int) uint8 {
			switch r {
			case 0:
				return 0
			case r10:
				return not0 | isR10
			}
			return not0
		}
	}
	XORL(s.second.As32(), s.second.As32())
	VMOVDQU(table("dst", register(noDst, dstWritten|frame)), s.dst)
	VMOVDQU(table("src", register(noSrc, frameSrc)), s.src)
	VMOVDQU(table("immLow", func(i int) uint8 {
		if i == 0 {
			return noImm | widths
		}
		return 0
	}), s.immLow)
	VMOVDQU(table("immHigh", func(i int) uint8 {
		switch i {
		case 0:
			return noImm
		case 1, 2, 4:
			return widths
		}
		return 0
	}), s.immHigh)
	return s
}

// expect sets second by the slot in front.
func (s *suspicion) expect(h *half) {
	CMPB(Mem{Base: h.insns, Disp: -8}, U8(opLdImm64))
	SETEQ(s.second.As8())
}

// find writes suspects, unless there is no refusal, and returns them. second is set for
// the slots behind.
func (s *suspicion) find(h *half) (firsts reg.GPVirtual) {
	facts, t := YMM(), YMM()
	firsts = GP32()
	halves := h.seconds
	XORL(firsts, firsts)
	TESTQ(s.refusal, s.refusal)
	JEQ(LabelRef("found"))
	Comment("Second halves behind anything but first halves, and the reverse")
	VPCMPEQB(eachByte("ldimm64", opLdImm64), h.ops, t)
	VPMOVMSKB(t, firsts)
	LEAL(Mem{Base: s.second, Index: firsts.As64(), Scale: 2}, s.second.As32())
	XORL(s.second.As32(), halves)
	MOVL(firsts, s.second.As32())
	SHRL(U8(31), s.second.As32())

	Comment("What the constants of the slots don't have of what opcodes must not have: where imm is 0, or",
		"16, 32 or 64, or off is 0. Numbers with the upper bit have all.")
	rule := eachByte
	bad := YMM()
	VPSHUFB(h.imms, s.immLow, facts)
	VPSRLW(U8(4), h.imms, h.imms)
	VPAND(eachByte("nibble", 0x0f), h.imms, h.imms)
	VPSHUFB(h.imms, s.immHigh, t)
	VPAND(t, facts, facts)
	VPOR(h.offLow, h.offHigh, t)
	VPCMPEQB(h.zero, t, t)
	VPAND(rule("noOff", noOff), t, t)
	VPOR(t, facts, facts)
	found := h.lookUp(s.refusal, refusalConstants)
	VPANDN(found, facts, bad)

	Comment("The same of registers: where dst or src isn't 0, or is R10, and off isn't in the frame.",
		"It is from -512 to -8. So offHigh is -2, which becomes 127, or it is -1, which becomes 126,",
		"and offLow is at most 248; else 1 is taken off.")
	VPSHUFB(h.dst, s.dst, facts)
	VPSHUFB(h.src, s.src, t)
	VPOR(t, facts, facts)
	VPXOR(eachByte("lastBytes", 0x81), h.offHigh, h.offHigh)
	VPSUBUSB(eachByte("frameSpan", frameSpan&0xff), h.offLow, h.offLow)
	VPMINUB(eachByte("one", 1), h.offLow, h.offLow)
	VPSUBSB(h.offLow, h.offHigh, h.offHigh)
	VPCMPGTB(eachByte("inFrame", 125), h.offHigh, t)
	VPAND(rule("frames", frame|frameSrc), t, t)
	VPANDN(facts, t, facts)
	found = h.lookUp(s.refusal, refusalRegisters)
	VPAND(facts, found, found)
	VPOR(found, bad, bad)

	Comment("Registers that don't exist")
	VPMAXUB(h.dst, h.src, t)
	VPSUBUSB(Mem{Base: s.refusal, Disp: refusalLast}, t, t)
	VPOR(t, bad, bad)
	Comment("Opcodes that aren't known")
	known := h.lookUp(s.refusal, refusalKnown)
	VPCMPEQB(h.zero, known, known)
	VPOR(known, bad, bad)
	upper(1, bad, bad)
	VPMOVMSKB(bad, firsts)
	ORL(halves, firsts)
	Label("found")
	MOVL(firsts, Mem{Base: h.block, Disp: blockSuspects})
	return firsts
}
