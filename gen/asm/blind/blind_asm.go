// Command blind generates the assembly of package blind: laying out a block of
// a program, and hiding its constants.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into blind.walk. A test pins them, and those below, to the structs.
const (
	walkHiding    = 5144
	walkUpper     = 5176
	walkZero      = 5208
	walkSpecial   = 5240
	walkHidden    = 5272
	walkNumHidden = 5536
	walkHalf      = 5544
	walkFound     = 5552
	walkReserved  = 5556
	walkAhead     = 5560
	walkFlagged   = 5561
	walkRest      = 5568
	walkLastInsns = 5576
	walkLastFlags = 5832
)

// Offsets into blind.classTable.
const (
	classOpLow  = 0
	classOpHigh = 16
	classDst    = 32
	classSrc    = 48
)

// Offsets into blind.rule, whose size is 1<<ruleShift.
const (
	ruleMov      = 0
	ruleXor      = 2 // behind ruleMov
	ruleOwn      = 4
	ruleReserved = 8
	ruleOther    = 12
	ruleShift    = 4
)

// Numbers of package blind.
const (
	inserted  = 1
	unit      = 32
	group     = 8
	anySource = 0xf000
	shiftLow  = 0x0b67
	shiftImm  = 32

	hides     = 0x0f // classes
	upperBit  = 3
	leads     = 0x70
	moveClass = 0x80
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	fetch()
	rewrite()
	hideAlone()
	compose()
	Generate()
}

// bytes32 makes a constant of 32 bytes, twice the same 16.
func bytes32(name string, at func(i int) uint8) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 32 {
		DATA(i, U8(at(i%16)))
	}
	return m
}

// param loads a parameter.
func param(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// symbol is a variable of package blind.
func symbol(name string) Mem { return NewDataAddr(Symbol{Name: "·" + name}, 0) }

func fetch() {
	TEXT("fetchAVO", NOSPLIT, "func(insns *uint64, count int)")
	align.Line()
	Pragma("noescape")
	Doc("fetchAVO has so many slots fetched into the caches, and less than a unit behind them, and",
		"as many a page further. It waits for none.")
	at, left := param("insns"), param("count")
	Label("unit")
	for line := 0; line < 8*unit; line += 64 {
		PREFETCHT0(Mem{Base: at, Disp: line})
		PREFETCHT0(Mem{Base: at, Disp: page + line})
	}
	ADDQ(U32(8*unit), at)
	SUBQ(U8(unit), left)
	JGT(LabelRef("unit"))
	RET()
}

func rewrite() {
	TEXT("rewriteAVO", NOSPLIT, "func(w, insns, flags, index, out, newFlags, jumps, numbers *uint64, count int)")
	align.Line()
	Pragma("noescape")
	Doc("rewriteAVO does what layOutGeneric does: first it finds the classes of 32 slots",
		"at a time, and makes bitmaps of them; then it moves slots, eight at a time. If there",
		"are numbers, it also does what hideGeneric does.")
	classify()
	move()
	VZEROUPPER()
	hide()
	Label("done")
	RET()
}

func hideAlone() {
	TEXT("hideAVO", NOSPLIT, "func(w, insns, index, out, newFlags, numbers *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("hideAVO does what hideGeneric does for the slots that rewriteAVO has listed.")
	hide()
	Label("done")
	RET()
}

// classify fills in the bitmaps.
func classify() {
	walk := param("w")
	insns, flags, jumps, count, place := param("insns"), param("flags"), param("jumps"), param("count"), param("w")
	nibble := bytes32("nibble", func(int) uint8 { return 0x0f })
	low8 := bytes32("low8", func(i int) uint8 { return []uint8{0xff, 0}[i%2] })
	low16 := bytes32("low16", func(i int) uint8 { return []uint8{0xff, 0xff, 0, 0}[i%4] })
	others := bytes32("others", func(int) uint8 { return 0xff &^ moveClass })
	hideMask := bytes32("hideMask", func(int) uint8 { return hides })
	leadMask := bytes32("leadMask", func(int) uint8 { return leads })
	// 0 1 | 4 5 | ... and 2 3 | 6 7 | ... become 0 1 | 2 3 | 4 5 ...
	zip := bytes32("zip", func(i int) uint8 { return uint8(i/4*2 + i%2 + i/2%2*8) })

	vector := func(m Mem) reg.VecVirtual { v := YMM(); VMOVDQU(m, v); return v }
	nibbles, bytes, halves := vector(nibble), vector(low8), vector(low16)
	zero := YMM()
	VPXOR(zero, zero, zero)
	var tables [4]reg.VecVirtual
	t := GP64()
	LEAQ(symbol("classes"), t)
	for k, at := range []int{classOpLow, classOpHigh, classDst, classSrc} {
		tables[k] = YMM()
		VBROADCASTI128(Mem{Base: t, Disp: at}, tables[k])
	}
	half, at, any := GP32(), GP64(), GP32()
	MOVL(Mem{Base: walk, Disp: walkHalf}, half)
	XORL(at.As32(), at.As32())
	XORL(any, any)
	TESTQ(count, count)
	JEQ(LabelRef("rest"))

	Label("unit")
	var words, zeros [2]reg.VecVirtual
	for k := range 2 {
		Comment(fmt.Sprintf("op, regs of slots %d to %d, and whether imm is 0", 16*k, 16*k+15))
		var rest, imm [2]reg.VecVirtual
		for h := range 2 {
			slots := func(first int) Mem { return Mem{Base: insns, Disp: 8 * (16*k + 8*h + first)} }
			a := YMM()
			rest[h], imm[h] = YMM(), YMM()
			VMOVDQU(slots(0), a)
			VSHUFPS(U8(0xdd), slots(4), a, imm[h])
			VSHUFPS(U8(0x88), slots(4), a, rest[h])
			VPAND(halves, rest[h], rest[h])
			VPCMPEQD(zero, imm[h], imm[h])
		}
		words[k], zeros[k] = rest[0], imm[0]
		VPACKUSDW(rest[1], rest[0], words[k])
		VPACKSSDW(imm[1], imm[0], zeros[k])
	}
	ops, regs, t0, class := YMM(), YMM(), YMM(), YMM()
	VPACKSSWB(zeros[1], zeros[0], zeros[0])
	VPAND(bytes, words[0], ops)
	VPAND(bytes, words[1], t0)
	VPACKUSWB(t0, ops, ops)
	VPSRLW(U8(8), words[0], regs)
	VPSRLW(U8(8), words[1], t0)
	VPACKUSWB(t0, regs, regs)
	Comment("The classes that both halves of op, dst and src have")
	for k, of := range []reg.VecVirtual{ops, ops, regs, regs} {
		v := t0
		if k == 0 {
			v = class
		}
		if k%2 == 0 {
			VPAND(nibbles, of, v)
		} else {
			VPSRLW(U8(4), of, v)
			VPAND(nibbles, v, v)
		}
		VPSHUFB(v, tables[k], v)
		if k > 0 {
			VPAND(v, class, class)
		}
	}
	Comment("A move is one only where imm is 0.")
	VPOR(others, zeros[0], zeros[0])
	VPAND(zeros[0], class, class)
	Comment("The order of slots again")
	VPERMQ(U8(0xd8), class, class)
	VPSHUFB(zip, class, class)

	Comment("left = how many slots of the unit there are")
	left, most := GP32(), GP32()
	MOVL(count.As32(), left)
	SUBL(at.As32(), left)
	MOVL(U32(unit), most)
	CMPL(left, most)
	CMOVLGT(most, left)
	hiding, upper, zeroed, leading, written := GP32(), GP32(), GP32(), GP32(), GP32()
	flagged := YMM()
	VMOVDQU(Mem{Base: flags}, t0)
	VPCMPEQB(zero, t0, flagged)
	VPSLLW(U8(8-1), t0, t0) // inserted is bit 0
	VPMOVMSKB(t0, written)
	VPMOVMSKB(class, zeroed)
	VPSLLW(U8(7-upperBit), class, t0)
	VPMOVMSKB(t0, upper)
	VPAND(hideMask, class, t0)
	VPCMPEQB(zero, t0, t0)
	VPMOVMSKB(t0, hiding)
	VPAND(leadMask, class, t0)
	VPCMPEQB(zero, t0, t0)
	VPMOVMSKB(t0, leading)
	Comment("Only what the author wrote is hidden; with a first half always the second")
	NOTL(leading)
	ANDNL(zeroed, written, zeroed)
	ANDNL(upper, written, upper)
	ORL(written, hiding)
	NOTL(hiding)
	ANDNL(hiding, zeroed, hiding)
	LEAL(Mem{Base: half.As64(), Index: upper.As64(), Scale: 2}, half)
	ORL(half, hiding)
	Comment("Zeros and what has flags are special.")
	special := written
	VPMOVMSKB(flagged, special)
	NOTL(special)
	ORL(zeroed, special)
	Comment("Nothing from the end of the program on")
	for _, bitmap := range []reg.GPVirtual{hiding, upper, zeroed, special, leading} {
		BZHIL(left, bitmap, bitmap)
	}
	MOVL(hiding, Mem{Base: place, Disp: walkHiding})
	MOVL(upper, Mem{Base: place, Disp: walkUpper})
	MOVL(zeroed, Mem{Base: place, Disp: walkZero})
	MOVL(special, Mem{Base: place, Disp: walkSpecial})
	Comment("and none from the next unit on, unless there is one")
	MOVQ(leading.As64(), Mem{Base: jumps})
	ORL(special, any)
	Comment("half = whether the last slot is a first half")
	DECL(left)
	SHRXL(left, upper, half)
	ADDQ(U32(8*unit), insns)
	ADDQ(U8(unit), flags)
	ADDQ(U8(4), jumps)
	ADDQ(U8(4), place)
	ADDQ(U8(unit), at)
	CMPQ(at, count)
	JLT(LabelRef("unit"))
	Label("rest")
	walk = param("w")
	rest := GP64()
	MOVQ(Mem{Base: walk, Disp: walkRest}, rest)
	Load(Param("count"), count)
	ADDQ(rest, count)
	CMPQ(at, count)
	JGE(LabelRef("classified"))
	Comment("The last slots are read from a copy, which has a whole unit.")
	last := GP64()
	LEAQ(Mem{Base: walk, Disp: walkLastInsns}, last)
	copyUnit(rest, insns, last)
	MOVQ(last, insns)
	CMPB(Mem{Base: walk, Disp: walkFlagged}, U8(0))
	JEQ(LabelRef("unit"))
	LEAQ(Mem{Base: walk, Disp: walkLastFlags}, flags)
	JMP(LabelRef("unit"))

	Label("classified")
	MOVL(half, Mem{Base: walk, Disp: walkHalf})
	MOVL(any, Mem{Base: walk, Disp: walkFound})
	MOVL(U32(0), Mem{Base: walk, Disp: walkReserved})
}

// copyUnit copies so many slots, less than a unit, and zeros behind them. It reads
// none of those. The copies can be read again at once, as vectors of the same places.
func copyUnit(count, from, to reg.GPVirtual) {
	numbers := GLOBL("numbers", RODATA|NOPTR)
	for k := range 4 {
		DATA(8*k, U64(k))
	}
	left, number, step := YMM(), YMM(), YMM()
	VMOVQ(count, left.AsX())
	VPBROADCASTQ(left.AsX(), left)
	VMOVDQU(numbers, number)
	VPCMPEQQ(step, step, step)
	VPSRLQ(U8(63), step, step)
	VPSLLQ(U8(2), step, step) // 4 in each
	for k := range unit / 4 {
		there, v := YMM(), YMM()
		VPCMPGTQ(number, left, there)
		VPMASKMOVQ(Mem{Base: from, Disp: 32 * k}, there, v)
		VMOVDQU(v, Mem{Base: to, Disp: 32 * k})
		if k+1 < unit/4 {
			VPSUBQ(step, left, left)
		}
	}
}

// page is the size of a page in bytes. Fetching from behind the end of memory does
// nothing.
const page = 4096

// move makes the index and the list of what is hidden, moves the slots, and clears
// the new flags.
func move() {
	walk := param("w")
	m := mover{
		insns: param("insns"), index: param("index"), out: param("out"), flags: param("newFlags"), left: param("count"),
		bitmaps: GP64(), hidden: GP64(), ones: GP64(), numbers: GP64(),
		at: GP64(), zero: YMM(),
		sequence: GLOBL("sequence", RODATA|NOPTR),
	}
	DATA(0, U64(0x0706050403020100))
	m.next = GLOBL("next", RODATA|NOPTR)
	DATA(0, U64(0x0807060504030201))
	DATA(8, U64(0))
	MOVQ(walk, m.bitmaps)
	LEAQ(Mem{Base: walk, Disp: walkHidden}, m.hidden)
	MOVQ(U64(0x0101010101010101), m.ones)
	MOVQ(m.sequence, m.numbers)
	MOVL(Mem{Base: m.index}, m.at.As32())
	VPXOR(m.zero, m.zero, m.zero)
	TESTQ(m.left, m.left)
	JEQ(LabelRef("restGroups"))
	CMPB(Mem{Base: walk, Disp: walkAhead}, U8(0))
	JEQ(LabelRef("group"))

	Label("groupAhead")
	Comment("A page ahead: the processor's own prefetching ends where a page does.")
	PREFETCHT0(Mem{Base: m.insns, Disp: page})
	PREFETCHT0(Mem{Base: m.out, Index: m.at, Scale: 8, Disp: page})
	PREFETCHT0(Mem{Base: m.out, Index: m.at, Scale: 8, Disp: page + 64})
	PREFETCHT0(Mem{Base: m.index, Disp: page})
	m.group()
	JGT(LabelRef("groupAhead"))
	JMP(LabelRef("moved"))

	Label("group")
	m.group()
	JGT(LabelRef("group"))

	Label("restGroups")
	walk = param("w")
	MOVQ(Mem{Base: walk, Disp: walkRest}, m.left)
	TESTQ(m.left, m.left)
	JEQ(LabelRef("moved"))
	MOVQ(U32(0), Mem{Base: walk, Disp: walkRest})
	LEAQ(Mem{Base: walk, Disp: walkLastInsns}, m.insns)
	JMP(LabelRef("group"))

	Label("moved")
	walk = param("w")
	SUBQ(walk, m.hidden)
	SUBQ(U32(walkHidden), m.hidden)
	MOVQ(m.hidden, Mem{Base: walk, Disp: walkNumHidden})
}

// mover has the registers of move.
type mover struct {
	insns, index, out, flags, left reg.GPVirtual
	at                             reg.GPVirtual // index of the next slot
	bitmaps, hidden                reg.GPVirtual
	ones, numbers                  reg.GPVirtual // bytes: ones, the numbers of the slots
	zero                           reg.VecVirtual
	sequence, next                 Mem // bytes from 0, and from 1
}

// group moves eight slots. Flags say whether any are left.
//
// A word has a byte for each. With the number of slots that each grows by in its
// byte, a multiplication by ones makes sums of them:
//
//	what they grow by       1  3  1  1  4  3  1  1   less 1
//	sums, up to and with    0  2  2  2  5  7  7  7
//	where they go           0  3  4  5  9 12 13 14   = number + sum
//
// The next ones' index is one more. Slots go where the sums say, not where the index
// does: reading that in parts, just written as a whole, would take longer than all
// the rest.
func (m *mover) group() {
	hiding, grow, t := GP64(), GP64(), GP64()
	Comment("What they grow by: two if hidden, and one more if an upper half")
	MOVBLZX(Mem{Base: m.bitmaps, Disp: walkHiding}, hiding.As32())
	MOVBLZX(Mem{Base: m.bitmaps, Disp: walkUpper}, grow.As32())
	PDEPQ(m.ones, hiding, hiding)
	PDEPQ(m.ones, grow, grow)
	LEAQ(Mem{Base: grow, Index: hiding, Scale: 2}, grow)
	IMULQ(m.ones, grow)
	Comment("The numbers of those in hiding")
	IMUL3Q(U32(0xff), hiding, t)
	PEXTQ(t, m.numbers, t)
	MOVQ(t, Mem{Base: m.hidden})
	POPCNTQ(hiding, t)
	ADDQ(t, m.hidden)
	LEAQ(Mem{Base: m.numbers, Index: m.ones, Scale: 8}, m.numbers)
	Comment("They had no flags.")
	VMOVDQU(m.zero, Mem{Base: m.flags, Index: m.at, Scale: 1})
	Comment("index = at + number + 1 + what those up to here grow by")
	from, sums := YMM(), YMM()
	VMOVQ(grow, sums.AsX())
	VPADDB(m.next, sums.AsX(), sums.AsX())
	VPMOVZXBD(sums.AsX(), sums)
	VMOVD(m.at.As32(), from.AsX())
	VPBROADCASTD(from.AsX(), from)
	VPADDD(from, sums, sums)
	VMOVDQU(sums, Mem{Base: m.index, Disp: 4})
	Comment("The slots go where the sums say.")
	place, base := hiding, t
	LEAQ(Mem{Base: m.out, Index: m.at, Scale: 8}, base)
	MOVQ(grow, place)
	ADDQ(m.sequence, place)
	SHRQ(U8(56), grow)
	LEAQ(Mem{Base: m.at, Index: grow, Scale: 1, Disp: group}, m.at)
	for k := range group {
		to, v := GP64(), grow
		if k == group-1 {
			to = place
		} else {
			MOVBLZX(place.As8(), to.As32())
			SHRQ(U8(8), place)
		}
		MOVQ(Mem{Base: m.insns, Disp: 8 * k}, v)
		MOVQ(v, Mem{Base: base, Index: to, Scale: 8})
	}
	ADDQ(U8(8*group), m.insns)
	ADDQ(U8(4*group), m.index)
	INCQ(m.bitmaps)
	SUBQ(U8(group), m.left)
}

// hide hides constants, and ends at done.
func hide() {
	numbers := param("numbers")
	TESTQ(numbers, numbers)
	JEQ(LabelRef("done"))
	hidden := param("w")
	insns, index, out, flags, rules := param("insns"), param("index"), param("out"), param("newFlags"), GP64()
	LEAQ(symbol("rules"), rules)
	k, reserved, shifts := GP64(), GP32(), XMM()
	MOVQ(U64(shiftImm<<32|shiftLow), k)
	VMOVQ(k, shifts)
	Comment("k counts up to 0, from the ends of hidden and numbers.")
	MOVQ(Mem{Base: hidden, Disp: walkNumHidden}, k)
	TESTQ(k, k)
	JEQ(LabelRef("done"))
	ADDQ(k, hidden)
	LEAQ(Mem{Base: numbers, Index: k, Scale: 4}, numbers)
	NEGQ(k)
	XORL(reserved, reserved)

	Label("hide")
	slot, at, rule, low, other := GP64(), GP64(), GP64(), GP64(), GP64()
	Comment("low = all of the slot but imm, rule = that of its opcode")
	MOVBLZX(Mem{Base: hidden, Index: k, Scale: 1, Disp: walkHidden}, slot.As32())
	MOVL(Mem{Base: index, Index: slot, Scale: 4}, at.As32())
	MOVL(Mem{Base: insns, Index: slot, Scale: 8}, low.As32())
	MOVBLZX(low.As8(), rule.As32())
	SHLL(U8(ruleShift-3), rule.As32())
	of := func(at int) Mem { return Mem{Base: rules, Index: rule, Scale: 8, Disp: at} }
	MOVLQSX(of(ruleOther), other)
	ADDQ(slot, other)
	next := slot
	MOVL(Mem{Base: index, Index: slot, Scale: 4, Disp: 4}, next.As32())
	Comment("mov, number^imm, xor, number in one store: those of 4 bytes were most of the time")
	number, imm, operations := XMM(), XMM(), XMM()
	VPBROADCASTD(Mem{Base: numbers, Index: k, Scale: 4}, number)
	VMOVQ(Mem{Base: insns, Index: other, Scale: 8}, imm)
	VPXOR(imm, number, number)
	VPMOVZXWQ(of(ruleMov), operations)
	VPBLENDD(U8(0b1010), number, operations, operations)
	VMOVDQU(operations, Mem{Base: out, Index: at, Scale: 8})
	Comment("The instruction reads AX instead of imm. In front of it is a shift, if anything.")
	MOVL(Mem{Base: insns, Index: other, Scale: 8}, other.As32())
	ORL(other.As32(), low.As32())
	ANDL(of(ruleReserved), other.As32())
	ORL(other.As32(), reserved)
	ORL(U32(anySource), low.As32())
	XORL(of(ruleOwn), low.As32())
	VMOVQ(shifts, Mem{Base: out, Index: at, Scale: 8, Disp: 16})
	MOVQ(low, Mem{Base: out, Index: next, Scale: 8, Disp: -8})
	Comment("All but the instruction are inserted.")
	MOVL(U32(inserted<<16|inserted<<8|inserted), Mem{Base: flags, Index: at, Scale: 1})
	MOVB(U8(0), Mem{Base: flags, Index: next, Scale: 1, Disp: -1})
	INCQ(k)
	JNE(LabelRef("hide"))
	MOVL(reserved, Mem{Base: param("w"), Disp: walkReserved})
}

func compose() {
	TEXT("composeAVO", NOSPLIT, "func(list, first, second *int32, count, limit int) (ok bool)")
	align.Line()
	Pragma("noescape")
	Doc("composeAVO does what composeGeneric does, with a group of numbers at least.")
	list := Load(Param("list"), GP64()).(reg.GPVirtual)
	first := Load(Param("first"), GP64()).(reg.GPVirtual)
	second := Load(Param("second"), GP64()).(reg.GPVirtual)
	count := Load(Param("count"), GP64()).(reg.GPVirtual)
	most := Load(Param("limit"), GP64()).(reg.GPVirtual)
	i, last, bad := GP64(), GP64(), GP32()
	mosts := YMM()
	DECQ(most)
	VMOVD(most.As32(), mosts.AsX())
	VPBROADCASTD(mosts.AsX(), mosts)
	LEAQ(Mem{Base: count, Disp: -group}, last)
	XORL(i.As32(), i.As32())

	Label("numbers")
	Comment("None is beyond the end?")
	v, least := YMM(), YMM()
	VMOVDQU(Mem{Base: first, Index: i, Scale: 4}, v)
	VPMINUD(mosts, v, least)
	VPCMPEQD(least, v, v)
	VPMOVMSKB(v, bad)
	INCL(bad)
	JNE(LabelRef("composed"))
	for k := range group {
		t := GP64()
		MOVL(Mem{Base: first, Index: i, Scale: 4, Disp: 4 * k}, t.As32())
		MOVL(Mem{Base: second, Index: t, Scale: 4}, t.As32())
		MOVL(t.As32(), Mem{Base: list, Index: i, Scale: 4, Disp: 4 * k})
	}
	ADDQ(U8(group), i)
	CMPQ(i, last)
	JLE(LabelRef("numbers"))
	Comment("The last group may be one that begins in another.")
	CMPQ(i, count)
	JGE(LabelRef("composed"))
	MOVQ(last, i)
	JMP(LabelRef("numbers"))

	Label("composed")
	TESTL(bad, bad)
	ok := GP8()
	SETEQ(ok)
	Store(ok, Return("ok"))
	VZEROUPPER()
	RET()
}
