package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A writer writes jumps into their gaps, a group at a time. All of a group must be as
// long as the pass before left them: then what a pass would read of sums is what they
// are already, and each jump can be looked at by itself.
//
// There is room for a group behind the last element of every list.
type writer struct {
	jumps, sums, gaps, n   reg.GPVirtual
	nextJump, nextSum, gap reg.GPVirtual // of the group
	end                    reg.GPVirtual // of the gaps
	left                   vector        // how many there are from each of the group on
	reach                  vector
	differ                 vector // where lengths do
}

// A vector has 32 bits of each jump of a group.
type vector = reg.VecVirtual

// newWriter returns a writer of the first n jumps. job.sums must be in sums.
func newWriter(job reg.Register, jumps, sums, n reg.GPVirtual) *writer {
	w := &writer{
		jumps: jumps, sums: sums, n: n, gaps: GP64(), nextJump: GP64(), nextSum: GP64(), gap: GP64(), end: GP64(),
		left: YMM(), reach: YMM(), differ: YMM(),
	}
	MOVQ(Mem{Base: job, Disp: jobGaps}, w.gaps)
	VPBROADCASTD(Mem{Base: job, Disp: jobReach}, w.reach)
	return w
}

// pad makes jumps of those elements behind the last jump that a writer looks at.
func (w *writer) pad() {
	Comment("What is behind the last jump leads to slot 0.")
	zeros, end := YMM(), GP64()
	VPXOR(zeros, zeros, zeros)
	MOVQ(w.n, end)
	SHLQ(U8(jumpShift), end)
	ADDQ(w.jumps, end)
	for k := 0; k < group; k += 2 {
		VMOVDQU(zeros, Mem{Base: end, Disp: k << jumpShift})
	}
}

// begin goes to mark k.
func (w *writer) begin(k reg.GPVirtual) {
	Comment("Behind the gaps of all marks it ends.")
	LEAQ(Mem{Base: w.gaps, Index: w.n, Scale: 8}, w.end)
	LEAQ(Mem{Base: w.gaps, Index: k, Scale: 8}, w.gap)
	LEAQ(Mem{Base: w.sums, Index: k, Scale: 4}, w.nextSum)
	MOVQ(k, w.nextJump)
	SHLQ(U8(jumpShift), w.nextJump)
	ADDQ(w.jumps, w.nextJump)
	left := GP64()
	MOVQ(w.n, left)
	SUBQ(k, left)
	VMOVD(left.As32(), w.left.AsX())
	VPBROADCASTD(w.left.AsX(), w.left)
	VPSUBD(lanes("lanes", func(i int) uint32 { return uint32(i) }), w.left, w.left)
}

// next goes on. The flags say "less" if there is another group.
func (w *writer) next() {
	VPSUBD(each("group", group), w.left, w.left)
	ADDQ(U32(group<<jumpShift), w.nextJump)
	ADDQ(U8(group*4), w.nextSum)
	ADDQ(U8(group*8), w.gap)
	CMPQ(w.gap, w.end)
}

// write writes a group. The flags say "not equal" if any jump isn't as long as it was.
func (w *writer) write() {
	j := func(k, at int) Mem { return Mem{Base: w.nextJump, Disp: k<<jumpShift + at} }
	Comment("d = dist + sums[rank] - sums[k+1]; room = sums[k+1] - sums[k]")
	var halves [2]vector
	for h := range halves {
		halves[h] = YMM()
		for k := range 4 {
			rank := GP64()
			MOVL(j(4*h+k, jumpRank), rank.As32())
			sum, x := (Mem{Base: w.sums, Index: rank, Scale: 4}), halves[h].AsX()
			if k == 0 {
				VMOVD(sum, x)
			} else {
				VPINSRD(U8(k), sum, x, x)
			}
		}
	}
	d, end, room := halves[0], YMM(), YMM()
	VINSERTI128(U8(1), halves[1].AsX(), d, d)
	var pairs [4]vector // of jumps k and k+4
	for k := range pairs {
		pairs[k] = YMM()
		VMOVDQU(j(k, 0), pairs[k].AsX())
		VINSERTI128(U8(1), j(k+4, 0), pairs[k], pairs[k])
	}
	a, b := YMM(), YMM()
	VPUNPCKLDQ(pairs[1], pairs[0], a)
	VPUNPCKLDQ(pairs[3], pairs[2], b)
	VPUNPCKLQDQ(b, a, a)
	VPADDD(a, d, d)
	VMOVDQU(Mem{Base: w.nextSum, Disp: 4}, end)
	VPSUBD(end, d, d)
	VPSUBD(Mem{Base: w.nextSum}, end, room)
	vanish, size, op := YMM(), YMM(), YMM()
	VPUNPCKHDQ(pairs[1], pairs[0], a)
	VPUNPCKHDQ(pairs[3], pairs[2], b)
	VPUNPCKLQDQ(b, a, vanish)
	VPUNPCKHQDQ(b, a, op)

	Comment("size = its long form, or the short one if d reaches so far, or 0")
	VPAND(each("lowByte", 0xff), op, size)
	VPADDD(each("shortBack", shortBack), d, a)
	VPMINUD(w.reach, a, b)
	VPCMPEQD(a, b, a)
	VPBLENDVB(a, each("short", shortJump), size, size)
	VPCMPEQD(d, vanish, vanish)
	VPANDN(size, vanish, size)
	Comment("Where it differs from room, but for what is behind the last one")
	VPXOR(a, a, a)
	VPCMPGTD(a, w.left, w.differ)
	VPXOR(size, room, room)
	VPAND(room, w.differ, w.differ)

	Comment("What isn't a jump has 0 for a distance.")
	VPCMPEQD(each("far", farAway), d, a)
	VPANDN(d, a, d)
	Comment("The lower half of the code is op | d<<8, and what encoder.Jump makes of it for each",
		"length; the upper half is the rest of d, and above it size.")
	VPSRLD(U8(8), op, op)
	VPAND(each("lowByte", 0xff), op, op)
	low, high, isJcc := YMM(), YMM(), YMM()
	VPSLLD(U8(8), d, low)
	VPOR(op, low, low)
	VPCMPEQD(each("longJa", longJa), size, a)
	VPAND(each("longJaOp", 0xeb^0xe9), a, a)
	VPXOR(a, low, low)
	VPSLLD(U8(8), op, op)
	VPADDD(each("longJccOp", 0x100f), op, op)
	VPSLLD(U8(16), d, a)
	VPOR(a, op, op)
	VPCMPEQD(each("longJcc", longJcc), size, isJcc)
	VPBLENDVB(isJcc, op, low, low)
	VPSRLD(U8(24), d, high)
	VPSRLD(U8(16), d, a)
	VPBLENDVB(isJcc, a, high, high)
	VPSLLD(U8(gapLen-32), size, size)
	VPOR(size, high, high)
	VPUNPCKLDQ(high, low, a)
	VPUNPCKHDQ(high, low, b)
	gap := func(k int) Mem { return Mem{Base: w.gap, Disp: 8 * k} }
	VMOVDQU(a.AsX(), gap(0))
	VMOVDQU(b.AsX(), gap(2))
	VEXTRACTI128(U8(1), a, gap(4))
	VEXTRACTI128(U8(1), b, gap(6))
	VPTEST(w.differ, w.differ)
}

// first sets k to the first mark of the group that differs.
func (w *writer) first(k reg.GPVirtual) {
	equal, t := YMM(), GP64()
	VPXOR(equal, equal, equal)
	VPCMPEQD(equal, w.differ, equal)
	VPMOVMSKB(equal, t.As32())
	NOTL(t.As32())
	TZCNTL(t.As32(), t.As32())
	SHRL(U8(2), t.As32())
	MOVQ(w.gap, k)
	SUBQ(w.gaps, k)
	SHRQ(U8(3), k)
	ADDQ(t, k)
}

// lanes makes a constant of eight 32-bit words, or finds the one that it has made before.
func lanes(name string, of func(i int) uint32) Mem {
	if m, ok := made[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range group {
		DATA(4*i, U32(of(i)))
	}
	made[name] = m
	return m
}

var made = map[string]Mem{}

// each makes a constant of the same word over and over.
func each(name string, word uint32) Mem { return lanes(name, func(int) uint32 { return word }) }
