// Command blind generates the assembly of package blind: laying out a block of
// a program, and hiding its constants.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into blind.blockJob. A test pins them, and those below, to the
// structs.
const (
	jobInsns    = 0
	jobFlags    = 8
	jobIndex    = 16
	jobOut      = 24
	jobClasses  = 32
	jobLists    = 40
	jobFirst    = 48
	jobCount    = 56
	jobHalf     = 64
	jobNewFlags = 72
	jobNumbers  = 80
	jobRules    = 88
	jobReserved = 96
)

// Offsets into blind.classTable and blind.lists.
const (
	classOpLow  = 0
	classOpHigh = 16
	classDst    = 32
	classSrc    = 48

	listHiding    = 0
	listUpper     = 32
	listZero      = 64
	listLeads     = 96
	listHidden    = 128
	listNumHidden = 392
)

// Offsets into blind.rule, whose size is 1<<ruleShift.
const (
	ruleMov      = 0
	ruleXor      = 4 // behind ruleMov
	ruleOwn      = 8
	ruleReserved = 12
	ruleShift    = 4
)

// Numbers of package blind.
const (
	inserted = 1
	unit     = 32
	group    = 8

	hides     = 0x0f // classes
	upperBit  = 3
	leads     = 0x70
	moveClass = 0x80
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	layOut()
	hide()
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

// load loads words of the job.
func load(job reg.Register, words map[int]reg.GPVirtual, order ...int) {
	for _, at := range order {
		MOVQ(Mem{Base: job, Disp: at}, words[at])
	}
}

func layOut() {
	TEXT("layOutAVO", NOSPLIT, "func(job *uint64)")
	Pragma("noescape")
	Doc("layOutAVO does what layOutGeneric does: first it finds the classes of 32 slots",
		"at a time, and makes bitmaps of them; then it moves slots, eight at a time.")
	lists := GP64()
	job := Load(Param("job"), GP64()).(reg.GPVirtual)
	MOVQ(Mem{Base: job, Disp: jobLists}, lists)
	classify(job, lists)
	move(job, lists)
	VZEROUPPER()
	RET()
}

// classify fills in the bitmaps.
func classify(job, lists reg.GPVirtual) {
	insns, flags, count := GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{jobInsns: insns, jobFlags: flags, jobCount: count}, jobInsns, jobFlags, jobCount)
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
	MOVQ(Mem{Base: job, Disp: jobClasses}, t)
	for k, at := range []int{classOpLow, classOpHigh, classDst, classSrc} {
		tables[k] = YMM()
		VBROADCASTI128(Mem{Base: t, Disp: at}, tables[k])
	}
	half, at, place := GP32(), GP64(), GP64()
	MOVL(Mem{Base: job, Disp: jobHalf}, half)
	XORL(at.As32(), at.As32())
	MOVQ(Mem{Base: job, Disp: jobFirst}, place)
	SHRQ(U8(3), place)
	ADDQ(lists, place)

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

	hiding, upper, zeroed, leading, written := GP32(), GP32(), GP32(), GP32(), GP32()
	VMOVDQU(Mem{Base: flags}, t0)
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
	Comment("Nothing from the end of the program on")
	left, most := GP32(), GP32()
	MOVL(count.As32(), left)
	SUBL(at.As32(), left)
	MOVL(U32(unit), most)
	CMPL(left, most)
	CMOVLGT(most, left)
	for k, bitmap := range []reg.GPVirtual{hiding, upper, zeroed, leading} {
		BZHIL(left, bitmap, bitmap)
		MOVL(bitmap, Mem{Base: place, Disp: []int{listHiding, listUpper, listZero, listLeads}[k]})
	}
	Comment("half = whether the last slot is a first half")
	last := GP32()
	LEAL(Mem{Base: left.As64(), Disp: -1}, last)
	SHRXL(last, upper, half)
	ADDQ(U32(8*unit), insns)
	ADDQ(U8(unit), flags)
	ADDQ(U8(4), place)
	ADDQ(U8(unit), at)
	CMPQ(at, count)
	JLT(LabelRef("unit"))
	MOVL(half, Mem{Base: job, Disp: jobHalf})
}

// page is the size of a page in bytes. Fetching from behind the end of memory does
// nothing.
const page = 4096

// move makes the index and the list of what is hidden, and moves the slots.
//
// Of a group of eight slots, a word has a byte for each. With the number of slots
// that each grows by in its byte, a multiplication by ones makes sums of them:
//
//	what they grow by       1  3  1  1  4  3  1  1   less 1
//	sums, up to and with    0  2  2  2  5  7  7  7
//	where they go           0  3  4  5  9 12 13 14   = number + sum
func move(job, lists reg.GPVirtual) {
	insns, index, out, left, at := GP64(), GP64(), GP64(), GP64(), GP64()
	bitmaps, hidden, ones, numbers := GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{jobInsns: insns, jobIndex: index, jobOut: out, jobCount: left},
		jobInsns, jobIndex, jobOut, jobCount)
	sequence := GLOBL("sequence", RODATA|NOPTR)
	DATA(0, U64(0x0706050403020100))
	MOVL(Mem{Base: index}, at.As32())
	LEAQ(Mem{Base: out, Index: at, Scale: 8}, out)
	MOVQ(U64(0x0101010101010101), ones)
	MOVQ(Mem{Base: job, Disp: jobFirst}, bitmaps)
	MOVQ(bitmaps, numbers)
	IMULQ(ones, numbers)
	ADDQ(sequence, numbers)
	SHRQ(U8(3), bitmaps)
	ADDQ(lists, bitmaps)
	MOVQ(Mem{Base: lists, Disp: listNumHidden}, hidden)
	LEAQ(Mem{Base: lists, Index: hidden, Scale: 1, Disp: listHidden}, hidden)

	Label("group")
	hiding, grow, t := GP64(), GP64(), GP64()
	Comment("A page ahead: the processor's own prefetching ends where a page does.")
	PREFETCHT0(Mem{Base: insns, Disp: page})
	PREFETCHT0(Mem{Base: out, Disp: page})
	PREFETCHT0(Mem{Base: out, Disp: page + 64})
	PREFETCHT0(Mem{Base: index, Disp: page})
	Comment("What they grow by: two if hidden, and one more if an upper half")
	MOVBLZX(Mem{Base: bitmaps, Disp: listHiding}, hiding.As32())
	MOVBLZX(Mem{Base: bitmaps, Disp: listUpper}, grow.As32())
	PDEPQ(ones, hiding, hiding)
	PDEPQ(ones, grow, grow)
	LEAQ(Mem{Base: grow, Index: hiding, Scale: 2}, grow)
	IMULQ(ones, grow)
	Comment("The numbers of those in hiding")
	MOVQ(hiding, t)
	SHLQ(U8(8), t)
	SUBQ(hiding, t)
	PEXTQ(t, numbers, t)
	MOVQ(t, Mem{Base: hidden})
	POPCNTQ(hiding, t)
	ADDQ(t, hidden)
	LEAQ(Mem{Base: numbers, Index: ones, Scale: 8}, numbers)
	Comment("index = at + number + what those in front grow by")
	from, sums := XMM(), YMM()
	MOVQ(grow, t)
	SHLQ(U8(8), t)
	ADDQ(sequence, t)
	VMOVQ(t, sums.AsX())
	VPMOVZXBD(sums.AsX(), sums)
	VMOVD(at.As32(), from)
	VPBROADCASTD(from, from.AsY())
	VPADDD(from.AsY(), sums, sums)
	VMOVDQU(sums, Mem{Base: index})
	Comment("The slots go where the sums say.")
	place := hiding
	MOVQ(grow, place)
	ADDQ(sequence, place)
	for k := range group {
		to, v := GP64(), GP64()
		if k == group-1 {
			to = place
		} else {
			MOVBLZX(place.As8(), to.As32())
			SHRQ(U8(8), place)
		}
		MOVQ(Mem{Base: insns, Disp: 8 * k}, v)
		MOVQ(v, Mem{Base: out, Index: to, Scale: 8})
	}
	SHRQ(U8(56), grow)
	ADDQ(U8(group), grow)
	ADDQ(grow, at)
	LEAQ(Mem{Base: out, Index: grow, Scale: 8}, out)
	ADDQ(U8(8*group), insns)
	ADDQ(U8(4*group), index)
	INCQ(bitmaps)
	SUBQ(U8(group), left)
	JGT(LabelRef("group"))

	Comment("The last group may have gone over the end.")
	ADDQ(left, at)
	MOVL(at.As32(), Mem{Base: index, Index: left, Scale: 4})
	job = Load(Param("job"), GP64()).(reg.GPVirtual)
	MOVQ(Mem{Base: job, Disp: jobLists}, lists)
	SUBQ(lists, hidden)
	SUBQ(U32(listHidden), hidden)
	MOVQ(hidden, Mem{Base: lists, Disp: listNumHidden})
}

func hide() {
	TEXT("hideAVO", NOSPLIT, "func(job *uint64)")
	Pragma("noescape")
	Doc("hideAVO does what hideGeneric does for the slots that layOutAVO has listed; there",
		"is one at least.")
	job := Load(Param("job"), GP64()).(reg.GPVirtual)
	insns, index, out, lists, flags, numbers, rules := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	load(job, map[int]reg.GPVirtual{
		jobInsns: insns, jobIndex: index, jobOut: out,
		jobLists: lists, jobNewFlags: flags, jobNumbers: numbers, jobRules: rules,
	}, jobInsns, jobIndex, jobOut, jobLists, jobNewFlags, jobNumbers, jobRules)
	k, reserved := GP64(), GP64()
	XORL(k.As32(), k.As32())
	XORL(reserved.As32(), reserved.As32())

	Label("hide")
	i, at, rule, low, t := GP64(), GP64(), GP64(), GP64(), GP64()
	Comment("i = the slot, at = index[i], low = all but its imm, rule = that of its opcode")
	MOVBLZX(Mem{Base: lists, Index: k, Scale: 1, Disp: listHidden}, i.As32())
	MOVL(Mem{Base: index, Index: i, Scale: 4}, at.As32())
	MOVL(Mem{Base: insns, Index: i, Scale: 8}, low.As32())
	MOVBLZX(low.As8(), rule.As32())
	SHLL(U8(ruleShift), rule.As32())
	ADDQ(rules, rule)
	slot := func(n int) Mem { return Mem{Base: out, Index: at, Scale: 8, Disp: 8 * n} }
	Comment("mov, number^imm, xor, number in one store: those of 4 bytes were most of the time")
	numbers4, imm, operations := XMM(), XMM(), XMM()
	VPBROADCASTD(Mem{Base: numbers, Index: k, Scale: 4}, numbers4)
	VMOVQ(Mem{Base: insns, Index: i, Scale: 8}, imm)
	VPXOR(imm, numbers4, numbers4)
	VPMOVZXDQ(Mem{Base: rule, Disp: ruleMov}, operations)
	VPBLENDD(U8(0b1010), numbers4, operations, operations)
	VMOVDQU(operations, slot(0))
	Comment("The instruction reads AX instead of imm.")
	MOVL(Mem{Base: rule, Disp: ruleReserved}, t.As32())
	ANDL(low.As32(), t.As32())
	ORL(t.As32(), reserved.As32())
	ORL(Mem{Base: rule, Disp: ruleOwn}, low.As32())
	MOVQ(low, slot(2))
	Comment("Two are inserted.")
	MOVW(U16(inserted<<8|inserted), Mem{Base: flags, Index: at, Scale: 1})
	INCQ(k)
	CMPQ(k, Mem{Base: lists, Disp: listNumHidden})
	JLT(LabelRef("hide"))
	MOVQ(reserved, Mem{Base: job, Disp: jobReserved})
	RET()
}
