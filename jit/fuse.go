package jit

import (
	"encoding/binary"
	"math/bits"

	"github.com/bpfjit/bpfjit/abi"
)

// Fusing. BPF has instructions of two operands, so compilers compute addresses
// in steps, most of all in loops over arrays:
//
//	r2 = r10
//	r2 += -400          lea rsi, [rbp+rdi-400]
//	r2 += r1
//
// The cage makes one instruction of them, which pays for its masks and its
// CHARGEs. If a load into the same register follows, which is the last that is
// seen of the sum, the lea goes to r11, and the load finds its address there.
// The first slot becomes the lea, the others nothing. None of them can fault or
// leave the code, no jump may lead to the others, and so nobody can see the
// state in between. The kernel's profile has no such thing.

// Opcodes that are fused, 64 bits; the forms of 32 bits are 3 less.
const (
	opMoveX = 0xbf
	opAddX  = 0x0f
	opAddK  = 0x07
	narrow  = abi.ClassALU64 - abi.ClassALU
)

// sumScratch in off makes r11d the destination of an OpSum.
const sumScratch = 0x100

// nothing is a slot without code: r0 = r0.
var nothing = abi.Insn{Op: opMoveX}

// fusing is what fusing works with, in memory that is used again.
type fusing struct {
	insns     []abi.Insn // the function's, fused: at least whole words, and one more
	targets   []uint8    // by slot: isTarget where a jump leads to; as many
	additions []uint64   // a bit a slot: adds to what the slot before moves; whole words
	job       surveyJob
}

// fuse replaces the function's instructions by a copy with moves and additions
// fused, and with accesses marked whose address r11 has already; see again.go.
func (c *compiler) fuse() {
	c.prepareSurvey()
	c.surveyAndFuse()
	for w, word := range c.fusing.additions {
		for ; word != 0; word &= word - 1 {
			c.fuseSum(w*wordSlots + bits.TrailingZeros64(word) - 1)
		}
	}
}

// fuseConstantsGeneric fuses what most are: a move of 64 bits and a constant of
// 16, with nothing behind. It leaves the other additions.
func (c *compiler) fuseConstantsGeneric() {
	f := &c.fusing
	for w, rest := range f.additions {
		for ; rest != 0; rest &= rest - 1 {
			bit := bits.TrailingZeros64(rest)
			i := w*wordSlots + bit
			move, add, behind := &f.insns[i-1], &f.insns[i], &f.insns[i+1]
			imm := int16(add.Imm)
			if move.Op != opMoveX || move.Off != 0 || move.Dst() == move.Src() || add.Op != opAddK || imm == 0 ||
				add.Imm != int32(imm) || f.targets[i] != 0 || behind.Dst() == move.Dst() {
				continue
			}
			*move = abi.Insn{Op: abi.OpLea, Regs: move.Regs, Off: imm}
			*add = nothing
			f.additions[w] &^= 1 << bit
		}
	}
}

// fuseSum fuses the move of a slot with what follows, if that is possible.
func (c *compiler) fuseSum(i int) {
	insns, targets := c.insns, c.fusing.targets
	in := insns[i]
	if in.Op != opMoveX && in.Op != opMoveX-narrow || in.Off != 0 || in.Dst() == in.Src() {
		return
	}
	sum := abi.Insn{Op: abi.OpSum, Regs: in.Regs}
	less := uint8(0)
	if in.Op != opMoveX {
		sum.Op, less = abi.OpSum32, narrow
	}
	n, added := 1, false
	for ; i+n < len(insns) && targets[i+n] == 0; n++ {
		next := insns[i+n]
		if next.Dst() != in.Dst() || next.Off != 0 {
			break
		}
		if next.Op == opAddK-less && !added {
			sum.Imm, added = next.Imm, true
			continue
		}
		if next.Op != opAddX-less || sum.Off != 0 {
			break
		}
		index := next.Src()
		if index == in.Dst() { // twice what there is
			if added {
				break
			}
			index = in.Src()
		}
		sum.Off = int16(index) + 1
	}
	if n == 1 {
		return
	}
	if end := i + n; end < len(insns) && targets[end] == 0 && overwrites(insns[end], in.Dst()) {
		sum.Off |= sumScratch
		markAgain(&insns[end])
	}
	if off := int16(sum.Imm); sum.Off == 0 && off != 0 && sum.Imm == int32(off) {
		sum = abi.Insn{Op: abi.OpLea - less, Regs: in.Regs, Off: off}
	}
	insns[i] = sum
	for k := i + 1; k < i+n; k++ {
		insns[k] = nothing
	}
}

// overwrites tells whether an instruction is a load through a register into the
// same one.
func overwrites(in abi.Insn, r uint8) bool {
	return opcodes[in.Op].base == 4 && in.Imm == 0 && in.Src() == r && in.Dst() == r
}

// appendSum appends lea dst, [src+index+imm].
//
//	REX.W 8D /r    ModRM  mod reg=dst rm      SIB  00 index base
//
// rbp and r13 as a base take a displacement, even 0.
func appendSum(b []byte, in abi.Insn) []byte {
	dst, base := abi.Native[in.Dst()], abi.Native[in.Src()]
	wide := in.Op == abi.OpSum
	if in.Off&sumScratch != 0 {
		dst, wide = abi.X86R11, false
		in.Off -= sumScratch
	}
	index := uint8(abi.RSP) // none
	if in.Off != 0 {
		index = abi.Native[in.Off-1]
	}
	if in.Imm == 0 && base&7 == abi.RBP && in.Off != 0 && index&7 != abi.RBP {
		base, index = index, base // the sum is the same
	}
	rex := 0x40 | dst>>3<<2 | index>>3<<1 | base>>3
	if wide {
		rex |= 8
	}
	if rex != 0x40 {
		b = append(b, rex)
	}
	mod := uint8(0x80)
	switch {
	case in.Imm == 0 && base&7 != abi.RBP:
		mod = 0
	case in.Imm == int32(int8(in.Imm)):
		mod = 0x40
	}
	b = append(b, 0x8d)
	if in.Off == 0 {
		b = append(b, mod|dst&7<<3|base&7)
	} else {
		b = append(b, mod|dst&7<<3|abi.RSP, index&7<<3|base&7)
	}
	switch mod {
	case 0x40:
		return append(b, byte(in.Imm))
	case 0x80:
		return binary.LittleEndian.AppendUint32(b, uint32(in.Imm))
	}
	return b
}
