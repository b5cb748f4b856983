// Command survey generates the assembly of package jit that finds what the
// cage's compiler can fuse. It looks at 64 slots at a time: vectors make a bit
// of each slot for everything that one may ask, and arithmetic on words of 64
// bits does the rest. Nothing in it branches on a program's data but the loop
// over jumps.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Offsets into jit.surveyJob. A test pins them, and those below, to the structs.
const (
	jobInsns     = 0
	jobTargets   = 8
	jobAdditions = 16
	jobSlots     = 24
	jobNext      = 32
	jobStop      = 40
	jobHeld      = 48
	jobBase      = 56
	jobMoves     = 88
	jobLooked    = 120
	jobJumps     = 8312
	jobAgain     = 8832
)

// Offsets into abi.Insn.
const (
	insnRegs = 1
	insnOff  = 2
	insnImm  = 4
)

// Numbers of abi and jit.
const (
	opGotol  = 0x06
	opMoveX  = 0xbf
	opAddK   = 0x07
	opLea    = 0xe7
	frame    = 10
	isTarget = 0xff
	noMove   = 0x40
	classST  = 2
	// The bits that markAgain sets, in a slot as a little-endian word.
	markSrc = 12
	markImm = 32

	numClasses = 8
	numBits    = 4 // of a register's number
	wordShift  = 6 // of wordSlots
	lookedSize = 128
	slotShift  = 3 // of abi.InsnSize
)

// bytes makes a constant of 32 bytes, of which the upper 16 are the lower, or finds
// the one that it has made before.
func bytes(name string, b func(i int) uint8) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 32 {
		DATA(i, U8(b(i%16)))
	}
	made[name] = m
	return m
}

var made = map[string]Mem{}

// all makes a constant of 32 equal bytes.
func all(name string, b uint8) Mem { return bytes(name, func(int) uint8 { return b }) }

// A pair is the same of slots 0 to 31 and of slots 32 to 63.
type pair [2]reg.VecVirtual

// mask returns the uppermost bits of the bytes that test leaves in to for
// either half of 64 slots.
func mask(test func(h int, to reg.VecVirtual)) reg.GPVirtual {
	return uppermost(func(h int) reg.VecVirtual {
		to := YMM()
		test(h, to)
		return to
	})
}

// uppermost returns the uppermost bits of bytes.
func uppermost(of func(h int) reg.VecVirtual) reg.GPVirtual {
	m, upper := GP64(), GP64()
	for h, g := range []reg.GPVirtual{m, upper} {
		VPMOVMSKB(of(h), g.As32())
	}
	SHLQ(U8(32), upper)
	ORQ(upper, m)
	return m
}

// bit returns bit k of the bytes of a pair.
func bit(k uint8, p pair) reg.GPVirtual {
	return mask(func(h int, to reg.VecVirtual) { VPSLLW(U8(7-k), p[h], to) })
}

// none finds the bytes that have none of some bits.
func none(name string, bits uint8, v, to reg.VecVirtual) {
	VPAND(all(name, bits), v, to)
	VPCMPEQB(zero, to, to)
}

var (
	job, insns, slot    reg.GPVirtual
	zero, nibble        reg.VecVirtual
	before              reg.VecVirtual // moves of the 32 slots before
	last                reg.VecVirtual // the base of the last access, in all bytes
	lowTable, highTable Mem
	planes, inOrder     Mem
	nibbles, tens       Mem
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	lowTable = half("lowTable", func(p product) []uint8 { return p.low })
	highTable = half("highTable", func(p product) []uint8 { return p.high })
	// Of four slots of which imm is left out: opcodes, registers, and the rest.
	planes = bytes("planes", func(i int) uint8 { return uint8(i%4*4 + i/4) })
	// Of eight words of two slots each, those of the lower half and those of
	// the upper half take turns.
	inOrder = bytes("inOrder", func(i int) uint8 { return uint8(i/4*2 + i%2 + i/2%2*8) })
	nibbles, tens = all("nibbles", 15), all("tens", frame)
	survey()
	fuseConstants()
	Generate()
}

func survey() {
	TEXT("surveyAVO", NOSPLIT, "func(job *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("surveyAVO surveys the slots of the words from job.next up to job.stop: it looks at all of",
		"them, marks where their jumps lead, then finds additions and accesses, and marks those.")
	job, insns, slot = GP64(), GP64(), GP64()
	zero, nibble, before, last = YMM(), YMM(), YMM(), YMM()
	w := walk{GP64(), GP64()}
	Load(Param("job"), job)
	MOVQ(field(jobInsns), insns)
	VPXOR(zero, zero, zero)
	VMOVDQU(nibbles, nibble)

	w.begin()
	Label("look")
	var bits pair
	for h := range bits {
		Comment(fmt.Sprintf("opcodes and registers of slots %d to %d, and properties of opcodes", 32*h, 32*h+31))
		op, regs := YMM(), YMM()
		gather(32*h, op, regs)
		VMOVDQU(regs, w.regs(h))
		bits[h] = properties(op)
		VMOVDQU(bits[h], w.bits(h))
	}
	jumps := bit(4, bits)
	BZHIQ(left(), jumps, jumps)
	MOVQ(jumps, w.word(jobJumps))
	w.next("look")
	markTargets()

	VMOVDQU(field(jobMoves), before)
	VMOVDQU(field(jobBase), last)
	w.begin()
	Label("find")
	var regs, dst pair
	for h := range regs {
		regs[h], bits[h], dst[h] = YMM(), YMM(), YMM()
		VMOVDQU(w.regs(h), regs[h])
		VMOVDQU(w.bits(h), bits[h])
		VPAND(nibble, regs[h], dst[h])
	}
	additions(dst, bits, left())
	MOVQ(again(regs, dst, bits), w.word(jobAgain))
	w.next("find")
	VMOVDQU(before, field(jobMoves))
	VMOVDQU(last, field(jobBase))
	VZEROUPPER()
	markAccesses()
	MOVQ(field(jobStop), slot)
	MOVQ(slot, field(jobNext))
	RET()
}

// A walk goes over the words, of each of which the job has what was seen.
type walk struct{ looked, at reg.GPVirtual }

func (w walk) begin() {
	LEAQ(field(jobLooked), w.looked)
	XORL(w.at.As32(), w.at.As32())
	MOVQ(field(jobNext), slot)
	SHLQ(U8(wordShift), slot)
}

// next goes to the next word, if there is one, and to a label.
func (w walk) next(label string) {
	SUBQ(I8(-lookedSize), w.looked)
	ADDQ(U8(8), w.at)
	ADDQ(U8(64), slot)
	t := GP64()
	MOVQ(slot, t)
	SHRQ(U8(wordShift), t)
	CMPQ(t, field(jobStop))
	JLT(LabelRef(label))
}

func (w walk) regs(half int) Mem { return Mem{Base: w.looked, Disp: 32 * half} }
func (w walk) bits(half int) Mem { return Mem{Base: w.looked, Disp: 64 + 32*half} }

// word is the one in a list of the job.
func (w walk) word(list int) Mem { return Mem{Base: job, Index: w.at, Scale: 1, Disp: list} }

// left returns how many slots of the function there are from the word on, or 64.
func left() reg.GPVirtual {
	n, most := GP64(), GP64()
	MOVQ(field(jobSlots), n)
	SUBQ(slot, n)
	MOVL(U32(64), most.As32())
	CMPQ(n, most)
	CMOVQGT(most, n)
	return n
}

// each makes the body for each slot of the words in a list of the job, behind which there
// is one more. How many a word has can't be foreseen, so there is no branch where it ends.
func each(list int, name string, body func(k reg.GPVirtual)) {
	at, end, set, k := GP64(), GP64(), GP64(), GP64()
	behind, base, next := GP64(), GP64(), GP64()
	LEAQ(field(list), at)
	MOVQ(field(jobNext), slot)
	MOVQ(field(jobStop), end)
	SUBQ(slot, end)
	LEAQ(Mem{Base: at, Index: end, Scale: 8}, end)
	SHLQ(U8(wordShift), slot)
	Label(name + "Word")
	CMPQ(at, end)
	JGE(LabelRef(name + "Done"))
	MOVQ(Mem{Base: at}, set)
	TESTQ(set, set)
	JEQ(LabelRef(name + "None"))
	Label(name)
	TZCNTQ(set, k)
	ADDQ(slot, k)
	body(k)
	LEAQ(Mem{Base: at, Disp: 8}, behind)
	LEAQ(Mem{Base: slot, Disp: 64}, base)
	MOVQ(Mem{Base: behind}, next)
	BLSRQ(set, set)
	CMOVQEQ(behind, at)
	CMOVQEQ(base, slot)
	CMOVQEQ(next, set)
	TESTQ(set, set)
	JEQ(LabelRef(name + "Word"))
	CMPQ(at, end)
	JLT(LabelRef(name))
	JMP(LabelRef(name + "Done"))
	Label(name + "None")
	ADDQ(U8(8), at)
	ADDQ(U8(64), slot)
	JMP(LabelRef(name + "Word"))
	Label(name + "Done")
}

func field(at int) Mem { return Mem{Base: job, Disp: at} }

// gather collects opcodes and registers of 32 slots.
func gather(first int, op, regs reg.VecVirtual) {
	var four [4]reg.VecVirtual
	for k := range four {
		at := func(n int) Mem {
			return Mem{Base: insns, Index: slot, Scale: 1 << slotShift, Disp: (first + 8*k + n) << slotShift}
		}
		four[k] = YMM()
		VMOVDQU(at(0), four[k])
		VSHUFPS(U8(0x88), at(4), four[k], four[k])
		VPSHUFB(planes, four[k], four[k])
		if k%2 == 1 {
			VPUNPCKLDQ(four[k], four[k-1], four[k-1])
		}
	}
	VPUNPCKLQDQ(four[2], four[0], op)
	VPUNPCKHQDQ(four[2], four[0], regs)
	// The lanes hold slots 0 1 4 5 8 9 ... and 2 3 6 7 10 11 ...
	for _, v := range []reg.VecVirtual{op, regs} {
		VPERMQ(U8(0xd8), v, v)
		VPSHUFB(inOrder, v, v)
	}
}

// properties looks up opcodes.
func properties(op reg.VecVirtual) reg.VecVirtual {
	low, high, t := YMM(), YMM(), YMM()
	VPSRLW(U8(4), op, high)
	VPAND(nibble, high, high)
	VPAND(nibble, op, low)
	VMOVDQU(highTable, t)
	VPSHUFB(high, t, high)
	VMOVDQU(lowTable, t)
	VPSHUFB(low, t, low)
	VPAND(high, low, low)
	return low
}

// markTargets marks where the jumps lead to. Those to nowhere, which nobody
// compiles, lead behind the last slot.
func markTargets() {
	targets, n, to := GP64(), GP64(), GP64()
	MOVQ(field(jobTargets), targets)
	MOVQ(field(jobSlots), n)
	Comment("targets[slot+1+off] of each jump")
	var gotol func()
	each(jobJumps, "jump", func(k reg.GPVirtual) {
		at := func(disp int) Mem { return Mem{Base: insns, Index: k, Scale: 1 << slotShift, Disp: disp} }
		MOVWLSX(at(insnOff), to.As32())
		CMPB(at(0), U8(opGotol))
		JEQ(LabelRef("gotol"))
		Label("mark")
		LEAL(Mem{Base: k, Index: to, Scale: 1, Disp: 1}, to.As32())
		CMPL(to.As32(), n.As32())
		CMOVLCC(n.As32(), to.As32())
		MOVB(U8(isTarget), Mem{Base: targets, Index: to, Scale: 1})
		gotol = func() { MOVL(at(insnImm), to.As32()) }
	})
	JMP(LabelRef("marked"))
	Label("gotol")
	gotol()
	JMP(LabelRef("mark"))
	Label("marked")
}

// additions finds those to the register that the slot before moves to.
func additions(dst, bits pair, left reg.GPVirtual) {
	Comment("moved = dst, with 0x80 if it is a move and 0x40 if not; added = dst, with 0x80",
		"if it is an addition. Is that of a slot moved of the one before?")
	moveBit, addBit, other := all("move", move), all("add", add), all("other", noMove)
	m := mask(func(h int, to reg.VecVirtual) {
		moved, t := YMM(), YMM()
		VPAND(moveBit, bits[h], moved)
		VPADDB(dst[h], moved, moved)
		VPADDB(other, moved, moved)
		Comment("to = moved, one slot on")
		VPERM2I128(U8(0x21), moved, before, t)
		VPALIGNR(U8(15), t, moved, to)
		VMOVDQA(moved, before)
		VPAND(addBit, bits[h], t)
		VPOR(dst[h], t, t)
		VPCMPEQB(t, to, to)
	})
	BZHIQ(left, m, m)
	at, to := GP64(), GP64()
	MOVQ(slot, at)
	SHRQ(U8(slotShift), at)
	MOVQ(field(jobAdditions), to)
	MOVQ(m, Mem{Base: to, Index: at, Scale: 1})
}

// again returns the accesses whose base r11 has already: it is that of the access
// before, and nothing between changes it or r11, or is where a jump leads to.
func again(regs, dst, bits pair) reg.GPVirtual {
	Comment("base = dst of stores, src of loads; start = loads that overwrite their base")
	base := pair{YMM(), YMM()}
	start := mask(func(h int, to reg.VecVirtual) {
		load, src := YMM(), YMM()
		VPSLLW(U8(6), bits[h], load)
		VPSRLW(U8(4), regs[h], src)
		VPAND(nibble, src, src)
		VPBLENDVB(load, src, dst[h], base[h])
		VPCMPEQB(src, dst[h], to)
		VPAND(load, to, to)
	})
	Comment("other = no access, or one of the frame; held = base where not")
	held := pair{YMM(), YMM()}
	other := mask(func(h int, to reg.VecVirtual) {
		t := YMM()
		none("accesses", stores|loads, bits[h], to)
		VPCMPEQB(tens, base[h], t)
		VPOR(t, to, to)
		VPOR(base[h], to, held[h])
	})
	Comment("start = accesses that leave their base in r11")
	ORQ(other, start)
	NOTQ(start)
	hold(held)

	Comment("quiet = slots that are no accesses, leave held and r11 as they are, and that no jump leads to;",
		"same = accesses of what is held")
	at := GP64()
	MOVQ(field(jobTargets), at)
	ADDQ(slot, at)
	same := pair{YMM(), YMM()}
	quiet := mask(func(h int, to reg.VecVirtual) {
		t, targets := YMM(), YMM()
		none("writers", loads|computes|shifts|wide, bits[h], t)
		VPCMPEQB(held[h], dst[h], to)
		VPANDN(to, t, to)
		none("harmless", stores|loads|computes|shifts|jumps|wide|add, bits[h], t)
		VPOR(t, to, to)
		VMOVDQU(Mem{Base: at, Disp: 32 * h}, targets)
		VPOR(targets, to, to)
		VPCMPEQB(held[h], base[h], same[h])
		VPANDN(same[h], targets, same[h])
	})
	ANDNQ(other, quiet, quiet)
	behind := spread(start, quiet)
	Comment("again = accesses behind those, of the same base, that no jump leads to")
	ANDNQ(behind, other, behind)
	ANDQ(uppermost(func(h int) reg.VecVirtual { return same[h] }), behind)
	return behind
}

// hold makes of bytes, which are negative or not, the byte of the last slot in front
// that isn't negative. Bytes are filled from 1 slot in front, then from 2, and so on.
// That of the words before comes last, so that one word needn't wait for the other.
func hold(held pair) {
	t, negative := YMM(), YMM()
	VPCMPEQB(negative, negative, negative)
	fill := func(h int, from reg.VecVirtual) { VPBLENDVB(held[h], from, held[h], held[h]) }
	Comment("held = that of the last slot up to each")
	for distance := 1; distance < 32; distance *= 2 {
		Comment(fmt.Sprintf("%d slots", distance))
		ahead(held[1], held[0], t, distance)
		fill(1, t)
		ahead(held[0], negative, t, distance)
		fill(0, t)
	}
	fill(1, held[0])
	fill(1, last)
	fill(0, last)
	Comment("held, one slot on; last is the one of the slots behind.")
	next := YMM()
	VPERMQ(U8(0xff), held[1], next)
	VPSHUFB(bytes("sevens", func(int) uint8 { return 7 }), next, next)
	ahead(held[1], held[0], held[1], 1)
	ahead(held[0], last, held[0], 1)
	VMOVDQA(next, last)
}

// ahead sets to to the bytes that are 1, 2, 4, 8 or 16 slots in front of those of v.
// before is what is in front of v.
func ahead(v, before, to reg.VecVirtual, distance int) {
	t := YMM()
	if distance == 16 {
		t = to
	}
	VPERM2I128(U8(0x21), v, before, t)
	if distance < 16 {
		VPALIGNR(U8(16-distance), t, v, to)
	}
}

// markAccesses marks the accesses that again returned.
func markAccesses() {
	Comment("The mark is in src of stores of a constant, in imm of others.")
	marks := GLOBL("marks", RODATA|NOPTR)
	for class := range numClasses {
		mark := markImm
		if class == classST {
			mark = markSrc
		}
		DATA(8*class, U64(1<<mark))
	}
	class, table := GP64(), GP64()
	LEAQ(marks, table)
	each(jobAgain, "again", func(k reg.GPVirtual) {
		slot := Mem{Base: insns, Index: k, Scale: 1 << slotShift}
		MOVL(slot, class.As32())
		ANDL(U8(numClasses-1), class.As32())
		MOVQ(Mem{Base: table, Index: class, Scale: 8}, class)
		ORQ(class, slot)
	})
}

// spread returns the slots behind those of start, each with the run of slots in
// through that begins there and the slot that ends it. The sum of through and
// the beginnings of runs carries through them. What goes on behind the 64 slots
// comes from, and is left in, job.held. start is lost.
func spread(start, through reg.GPVirtual) reg.GPVirtual {
	behind, run := GP64(), GP64()
	Comment("behind = start, one slot on; run = where runs begin")
	MOVQ(field(jobHeld), behind)
	LEAQ(Mem{Base: behind, Index: start, Scale: 2}, behind)
	SHRQ(U8(63), start)
	MOVQ(behind, run)
	ANDQ(through, run)
	ANDNQ(behind, through, behind)
	Comment("The carries are what changes in through.")
	ADDQ(through, run)
	ADCQ(U8(0), start)
	MOVQ(start, field(jobHeld))
	XORQ(through, run)
	ORQ(run, behind)
	return behind
}
