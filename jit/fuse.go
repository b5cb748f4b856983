package jit

import (
	"encoding/binary"
	"slices"

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
// CHARGEs. The first slot becomes the lea, the others nothing. None of them
// can fault or leave the code, no jump may lead to the others, and so nobody
// can see the state in between. The kernel's profile has no such thing.

// Opcodes that are fused, 64 bits; the forms of 32 bits are 3 less.
const (
	opMoveX = 0xbf
	opAddX  = 0x0f
	opAddK  = 0x07
	narrow  = abi.ClassALU64 - abi.ClassALU
)

// nothing is a slot without code: r0 = r0.
var nothing = abi.Insn{Op: opMoveX}

// fuse replaces the function's instructions by a copy with moves and additions
// fused, if there are any to be fused.
func (c *compiler) fuse() {
	if !c.findFusable() {
		return
	}
	insns := append(c.private[:0], c.insns...)
	c.private = insns
	c.insns = insns
	for _, i := range c.fusable {
		c.fuseAt(int(i))
	}
}

// findFusable lists the moves that an addition to the same register follows,
// and marks the targets of jumps. It reports whether there are such moves.
func (c *compiler) findFusable() bool {
	c.fusable = c.fusable[:0]
	n := len(c.insns)
	c.targets = slices.Grow(c.targets[:0], n+2)[:n+2]
	clear(c.targets)
	targets := c.targets
	before, dst := uint8(0), uint8(0)
	for i := range c.insns {
		in := &c.insns[i]
		what := fusing[in.Op]
		if before&(what/(isAdd/isMove)) != 0 && (in.Regs^dst)&15 == 0 {
			c.fusable = append(c.fusable, int32(i-1))
		}
		before, dst = what&(isMove|isMove32), in.Regs
		// What is no jump has its target behind the function's end.
		to := n + 1
		if what&isJump != 0 {
			to = i + 1 + int(in.Off)
		}
		if in.Op == abi.OpGotol {
			to = i + 1 + int(in.Imm)
		}
		targets[to] = true
	}
	return len(c.fusable) > 0
}

// What an opcode is to findFusable.
const (
	isMove = 1 << iota
	isMove32
	isAdd
	isAdd32
	isJump
)

// fusing says what each opcode is.
var fusing = func() (t [256]uint8) {
	for op := range t {
		switch class := uint8(op) & abi.ClassMask; class {
		case abi.ClassJMP, abi.ClassJMP32:
			t[op] = isJump
		}
	}
	for _, op := range []uint8{abi.OpCall, abi.OpCallx, abi.OpExit, abi.OpCharge, abi.OpGotol} {
		t[op] = 0
	}
	t[opMoveX], t[opMoveX-narrow] = isMove, isMove32
	t[opAddK], t[opAddK-narrow] = isAdd, isAdd32
	t[opAddX], t[opAddX-narrow] = isAdd, isAdd32
	return t
}()

// fuseAt fuses the move of a slot with what follows, if that is possible.
func (c *compiler) fuseAt(i int) {
	insns := c.insns
	in := insns[i]
	if in.Op != opMoveX && in.Op != opMoveX-narrow || in.Off != 0 || in.Dst() == in.Src() {
		return // or fused already
	}
	lea := abi.Insn{Op: abi.OpLea, Regs: in.Regs}
	less := uint8(0)
	if in.Op != opMoveX {
		lea.Op, less = abi.OpLea32, narrow
	}
	n, added := 1, false
	for ; i+n < len(insns) && !c.targets[i+n]; n++ {
		next := insns[i+n]
		if next.Dst() != in.Dst() || next.Off != 0 {
			break
		}
		if next.Op == opAddK-less && !added {
			lea.Imm, added = next.Imm, true
			continue
		}
		if next.Op != opAddX-less || lea.Off != 0 {
			break
		}
		index := next.Src()
		if index == in.Dst() { // twice what there is
			if added {
				break
			}
			index = in.Src()
		}
		lea.Off = int16(index) + 1
	}
	if n == 1 {
		return
	}
	insns[i] = lea
	for k := i + 1; k < i+n; k++ {
		insns[k] = nothing
	}
}

// appendLea appends lea dst, [src+index+imm].
//
//	REX.W 8D /r    ModRM  mod reg=dst rm      SIB  00 index base
//
// rbp and r13 as a base take a displacement, even 0.
func appendLea(b []byte, in abi.Insn) []byte {
	dst, base := abi.Native[in.Dst()], abi.Native[in.Src()]
	index := uint8(abi.RSP) // none
	if in.Off != 0 {
		index = abi.Native[in.Off-1]
	}
	if in.Imm == 0 && base&7 == abi.RBP && in.Off != 0 && index&7 != abi.RBP {
		base, index = index, base // the sum is the same
	}
	rex := 0x40 | dst>>3<<2 | index>>3<<1 | base>>3
	if in.Op == abi.OpLea {
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
