package reemit

import (
	"encoding/binary"
	"errors"

	"github.com/bpfjit/bpfjit/abi"
)

// x86 registers beside those of BPF.
const (
	rax = abi.RAX
	rdx = abi.RDX
	rcx = abi.RCX
	r10 = abi.X86R10
	r11 = 11
)

var (
	errInsn   = errors.New("no code for this instruction")
	errHelper = errors.New("no helper has number 0")
)

func imm32(b []byte, v int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) }

func hi(r uint8) byte { return r >> 3 }

// rex appends the prefix of an instruction, if it needs one.
func rex(b []byte, w bool, reg, rm uint8) []byte {
	prefix := 0x40 | hi(reg)<<2 | hi(rm)
	if w {
		prefix |= 8
	}
	if prefix != 0x40 {
		b = append(b, prefix)
	}
	return b
}

// rr appends an instruction of two registers.
func rr(b []byte, w bool, reg, rm uint8, op ...byte) []byte {
	b = append(rex(b, w, reg, rm), op...)
	return append(b, 0xc0|reg&7<<3|rm&7)
}

// mem appends the address part of an instruction.
func mem(b []byte, reg, base uint8, off int16) []byte {
	if off == int16(int8(off)) {
		return append(b, 0x40|reg&7<<3|base&7, byte(off))
	}
	return imm32(append(b, 0x80|reg&7<<3|base&7), int32(off))
}

func mov(b []byte, w bool, dst, src uint8) []byte {
	if !w || dst != src {
		b = rr(b, w, src, dst, 0x89)
	}
	return b
}

// movImm loads a constant of 32 bits.
func movImm(b []byte, signed bool, dst uint8, v int32) []byte {
	switch {
	case signed && v < 0:
		b = rex(b, true, 0, dst)
		b = append(b, 0xc7, 0xc0|dst&7)
		b = imm32(b, v)
	case v == 0:
		b = rr(b, false, dst, dst, 0x31)
	default:
		b = rex(b, false, 0, dst)
		b = append(b, 0xb8|dst&7)
		b = imm32(b, v)
	}
	return b
}

func movImm64(b []byte, dst uint8, lo, hi int32) []byte {
	switch {
	case hi == 0:
		b = movImm(b, false, dst, lo)
	case hi == -1 && lo < 0:
		b = movImm(b, true, dst, lo)
	default:
		b = rex(b, true, 0, dst)
		b = append(b, 0xb8|dst&7)
		b = imm32(b, lo)
		b = imm32(b, hi)
	}
	return b
}

// insn appends the code of one instruction and returns how many slots it has.
func (c *Compiler) insn(b []byte, slot int) (code []byte, width int, err error) {
	in := c.insns[slot]
	if in.Dst() > abi.AX || in.Src() > abi.AX {
		return b, 0, errInsn
	}
	switch class := in.Op & abi.ClassMask; class {
	case abi.ClassALU, abi.ClassALU64:
		b, err = alu(b, in, class == abi.ClassALU64)
	case abi.ClassJMP, abi.ClassJMP32:
		b, err = c.jump(b, slot, in, class == abi.ClassJMP)
	case abi.ClassLD:
		if in.Op != abi.OpLdImm64 {
			return b, 0, errInsn
		}
		return movImm64(b, abi.Native[in.Dst()], in.Imm, c.insns[slot+1].Imm), 2, nil
	default:
		b, err = access(b, in)
	}
	return b, 1, err
}

// alu appends arithmetic.
func alu(b []byte, in abi.Insn, w bool) ([]byte, error) {
	dst, src := abi.Native[in.Dst()], abi.Native[in.Src()]
	x := in.Op&abi.SourceX != 0
	switch in.Op & abi.OpMask {
	case 0x00:
		b = simple(b, w, x, dst, src, in.Imm, 0x01, 0, 0x05)
	case 0x10:
		b = simple(b, w, x, dst, src, in.Imm, 0x29, 5, 0x2d)
	case 0x40:
		b = simple(b, w, x, dst, src, in.Imm, 0x09, 1, 0x0d)
	case 0x50:
		b = simple(b, w, x, dst, src, in.Imm, 0x21, 4, 0x25)
	case 0xa0:
		b = simple(b, w, x, dst, src, in.Imm, 0x31, 6, 0x35)
	case 0x20:
		switch {
		case x:
			b = rr(b, w, dst, src, 0x0f, 0xaf)
		case in.Imm == int32(int8(in.Imm)):
			b = rr(b, w, dst, dst, 0x6b)
			b = append(b, byte(in.Imm))
		default:
			b = rr(b, w, dst, dst, 0x69)
			b = imm32(b, in.Imm)
		}
	case 0x30, 0x90:
		b = divide(b, w, x, in, dst, src)
	case 0x60:
		b = shift(b, w, x, dst, src, in.Imm, 4, 1)
	case 0x70:
		b = shift(b, w, x, dst, src, in.Imm, 5, 3)
	case 0xc0:
		b = shift(b, w, x, dst, src, in.Imm, 7, 2)
	case 0x80:
		b = rex(b, w, 0, dst)
		b = append(b, 0xf7, 0xd8|dst&7)
	case 0xb0:
		return move(b, w, x, in, dst, src)
	case 0xd0:
		return swap(b, w, x, dst, in.Imm)
	default:
		return b, errInsn
	}
	return b, nil
}

// simple appends one of add, or, and, sub, xor: op for a register, digit for a
// constant, and short for a constant in rax.
func simple(b []byte, w, x bool, dst, src uint8, imm int32, op, digit, short byte) []byte {
	switch {
	case x:
		b = rr(b, w, src, dst, op)
	case imm == int32(int8(imm)):
		b = rex(b, w, 0, dst)
		b = append(b, 0x83, 0xc0|digit<<3|dst&7, byte(imm))
	case dst == rax:
		b = rex(b, w, 0, 0)
		b = append(b, short)
		b = imm32(b, imm)
	default:
		b = rex(b, w, 0, dst)
		b = append(b, 0x81, 0xc0|digit<<3|dst&7)
		b = imm32(b, imm)
	}
	return b
}

// shift shifts by a constant, by cl, or by any register (BMI2).
func shift(b []byte, w, x bool, dst, src uint8, imm int32, digit, pp byte) []byte {
	switch {
	case x && src == rcx:
		b = rex(b, w, 0, dst)
		b = append(b, 0xd3, 0xc0|digit<<3|dst&7)
	case x:
		third := byte(15-src)<<3 | pp
		if w {
			third |= 0x80
		}
		b = append(b, 0xc4, (1-hi(dst))<<7|0x40|(1-hi(dst))<<5|2, third, 0xf7, 0xc0|dst&7<<3|dst&7)
	case imm == 1:
		b = rex(b, w, 0, dst)
		b = append(b, 0xd1, 0xc0|digit<<3|dst&7)
	default:
		b = rex(b, w, 0, dst)
		b = append(b, 0xc1, 0xc0|digit<<3|dst&7, byte(imm))
	}
	return b
}

// divide divides rdx:rax, whose contents it keeps.
func divide(b []byte, w, x bool, in abi.Insn, dst, src uint8) []byte {
	if dst != rax {
		b = append(b, 0x50) // push rax
	}
	if dst != rdx {
		b = append(b, 0x52) // push rdx
	}
	q := src
	switch {
	case !x:
		q = r11
		b = append(b, 0x49, 0xc7, 0xc3) // mov r11, imm
		b = imm32(b, in.Imm)
	case src == rax, src == rdx:
		q = r11
		b = mov(b, true, r11, src)
	}
	if dst != rax {
		b = mov(b, w, rax, dst)
	}
	if in.Off == 0 {
		b = append(b, 0x31, 0xd2) // xor edx, edx
		b = rex(b, w, 0, q)
		b = append(b, 0xf7, 0xf0|q&7)
	} else {
		b = rex(b, w, 0, 0)
		b = append(b, 0x99) // cdq
		b = rex(b, w, 0, q)
		b = append(b, 0xf7, 0xf8|q&7)
	}
	switch mod := in.Op&abi.OpMask == 0x90; {
	case mod && dst != rdx:
		b = mov(b, w, dst, rdx)
	case !mod && dst != rax:
		b = mov(b, w, dst, rax)
	}
	if dst != rdx {
		b = append(b, 0x5a)
	}
	if dst != rax {
		b = append(b, 0x58)
	}
	return b
}

func move(b []byte, w, x bool, in abi.Insn, dst, src uint8) ([]byte, error) {
	switch {
	case !x:
		b = movImm(b, w, dst, in.Imm)
	case in.Off == 0:
		b = mov(b, w, dst, src)
	case in.Off == 8 && w:
		b = rr(b, true, dst, src, 0x0f, 0xbe)
	case in.Off == 8:
		b = append(b, 0x40|hi(dst)<<2|hi(src), 0x0f, 0xbe, 0xc0|dst&7<<3|src&7)
	case in.Off == 16:
		b = rr(b, w, dst, src, 0x0f, 0xbf)
	case in.Off == 32 && w:
		b = rr(b, true, dst, src, 0x63)
	default:
		return b, errInsn
	}
	return b, nil
}

// swap changes the order of bytes, or cuts to a width.
func swap(b []byte, w, x bool, dst uint8, width int32) ([]byte, error) {
	swaps := w || x
	switch {
	case width == 16 && swaps:
		b = append(b, 0x66)
		b = rex(b, false, 0, dst)
		b = append(b, 0xc1, 0xc8|dst&7, 8) // ror
		b = rr(b, false, dst, dst, 0x0f, 0xb7)
	case width == 32 && swaps:
		b = rex(b, false, 0, dst)
		b = append(b, 0x0f, 0xc8|dst&7)
	case width == 64 && swaps:
		b = rex(b, true, 0, dst)
		b = append(b, 0x0f, 0xc8|dst&7)
	case width == 16:
		b = rr(b, false, dst, dst, 0x0f, 0xb7)
	case width == 32:
		b = rr(b, false, dst, dst, 0x89)
	case width != 64:
		return b, errInsn
	}
	return b, nil
}

// access appends a load, a store, or an atomic operation.
func access(b []byte, in abi.Insn) ([]byte, error) {
	dst, src := abi.Native[in.Dst()], abi.Native[in.Src()]
	size := in.Op & abi.SizeMask
	switch in.Op & (abi.ModeMask | abi.ClassMask) {
	case 0x60 | abi.ClassLDX:
		b = load(b, size, dst, src, in.Off)
	case 0x80 | abi.ClassLDX:
		op := [][]byte{abi.SizeB: {0x0f, 0xbe}, abi.SizeH: {0x0f, 0xbf}, abi.SizeW: {0x63}}[size]
		b = rex(b, true, dst, src)
		b = append(b, op...)
		b = mem(b, dst, src, in.Off)
	case 0x60 | abi.ClassST:
		if size == abi.SizeH {
			b = append(b, 0x66)
		}
		b = rex(b, size == abi.SizeDW, 0, dst)
		if size == abi.SizeB {
			b = append(b, 0xc6)
		} else {
			b = append(b, 0xc7)
		}
		b = mem(b, 0, dst, in.Off)
		switch size {
		case abi.SizeB:
			b = append(b, byte(in.Imm))
		case abi.SizeH:
			b = append(b, byte(in.Imm), byte(in.Imm>>8))
		default:
			b = imm32(b, in.Imm)
		}
	case 0x60 | abi.ClassSTX:
		b = store(b, size, dst, src, in.Off)
	case 0xc0 | abi.ClassSTX:
		return atomic(b, in, dst, src)
	default:
		return b, errInsn
	}
	return b, nil
}

func load(b []byte, size, dst, src uint8, off int16) []byte {
	b = rex(b, size != abi.SizeW, dst, src)
	switch size {
	case abi.SizeB:
		b = append(b, 0x0f, 0xb6)
	case abi.SizeH:
		b = append(b, 0x0f, 0xb7)
	default:
		b = append(b, 0x8b)
	}
	b = mem(b, dst, src, off)
	return b
}

func store(b []byte, size, dst, src uint8, off int16) []byte {
	switch size {
	case abi.SizeB:
		if prefix := 0x40 | hi(src)<<2 | hi(dst); prefix != 0x40 || src >= abi.RBP && src <= abi.RDI {
			b = append(b, prefix)
		}
		b = append(b, 0x88)
	case abi.SizeH:
		b = append(b, 0x66)
		b = rex(b, false, src, dst)
		b = append(b, 0x89)
	default:
		b = rex(b, size == abi.SizeDW, src, dst)
		b = append(b, 0x89)
	}
	b = mem(b, src, dst, off)
	return b
}

// atomics are the opcodes of add, or, and, xor by the operation of an atomic
// instruction, 16th part of it.
var atomics = [16]byte{0x0: 0x01, 0x4: 0x09, 0x5: 0x21, 0xa: 0x31}

func atomic(b []byte, in abi.Insn, dst, src uint8) ([]byte, error) {
	size := in.Op & abi.SizeMask
	switch in.Imm {
	case 0x100:
		b = load(b, size, dst, src, in.Off)
		return b, nil
	case 0x110:
		b = store(b, size, dst, src, in.Off)
		return b, nil
	case 0x41, 0x51, 0xa1:
		return fetch(b, in, dst, src), nil
	}
	b = append(b, 0xf0) // lock
	b = rex(b, size == abi.SizeDW, src, dst)
	switch in.Imm {
	case 0x01:
		b = append(b, 0x0f, 0xc1) // xadd
	case 0xe1:
		b = append(b, 0x87) // xchg
	case 0xf1:
		b = append(b, 0x0f, 0xb1) // cmpxchg
	case 0x00, 0x40, 0x50, 0xa0:
		b = append(b, atomics[in.Imm>>4])
	default:
		return b, errInsn
	}
	b = mem(b, src, dst, in.Off)
	return b, nil
}

// fetch is a loop of compare and exchange: x86 has no such instruction.
func fetch(b []byte, in abi.Insn, dst, src uint8) []byte {
	size := in.Op & abi.SizeMask
	w := size == abi.SizeDW
	b = mov(b, true, r10, rax)
	s, d := src, dst
	if s == rax {
		s = r10
	}
	if d == rax {
		d = r10
	}
	loop := len(b)
	b = load(b, size, rax, d, in.Off)
	b = mov(b, w, r11, rax)
	b = rr(b, w, s, r11, atomics[in.Imm>>4])
	b = append(b, 0xf0)
	b = rex(b, w, r11, d)
	b = append(b, 0x0f, 0xb1)
	b = mem(b, r11, d, in.Off)
	b = append(b, 0x75, byte(loop-len(b)-2)) // jne loop
	b = mov(b, w, s, rax)
	b = mov(b, true, rax, r10)
	return b
}

// conditions are the short opcodes of jcc.
var conditions = [16]byte{1: 0x74, 2: 0x77, 3: 0x73, 4: 0x75, 5: 0x75, 6: 0x7f, 7: 0x7d, 10: 0x72, 11: 0x76, 12: 0x7c, 13: 0x7e}

// jump appends a jump, a call, or an EXIT.
func (c *Compiler) jump(b []byte, slot int, in abi.Insn, w bool) ([]byte, error) {
	switch in.Op {
	case abi.OpCall:
		if in.Imm == 0 && in.Src() == abi.CallHelper {
			return b, errHelper
		}
		b = append(b, 0xe8)
		c.Calls = append(c.Calls, uint32(len(b)))
		b = imm32(b, 0)
		return b, nil
	case abi.OpExit:
		if c.first {
			c.first, c.exit = false, int32(len(b))
			b = c.epilogue(b)
			return b, nil
		}
		return c.jmp(b, slot, c.exit-c.addrs[slot+1], true)
	case abi.OpJa, abi.OpGotol:
		d := int32(in.Off)
		if in.Op == abi.OpGotol {
			d = in.Imm
		}
		if d == -1 {
			return c.jmp(b, slot, -2, false)
		}
		return c.jmp(b, slot, c.distance(slot, d), false)
	}
	cc := conditions[in.Op>>4]
	if cc == 0 {
		return b, errInsn
	}
	dst, src := abi.Native[in.Dst()], abi.Native[in.Src()]
	set := in.Op&abi.OpMask == 0x40
	switch x := in.Op&abi.SourceX != 0; {
	case x && set:
		b = rr(b, w, src, dst, 0x85)
	case x:
		b = rr(b, w, src, dst, 0x39)
	case set:
		b = rex(b, w, 0, dst)
		b = append(b, 0xf7, 0xc0|dst&7)
		b = imm32(b, in.Imm)
	case in.Imm == 0:
		b = rr(b, w, dst, dst, 0x85)
	case in.Imm == int32(int8(in.Imm)):
		b = rex(b, w, 0, dst)
		b = append(b, 0x83, 0xf8|dst&7, byte(in.Imm))
	default:
		b = rex(b, w, 0, dst)
		b = append(b, 0x81, 0xf8|dst&7)
		b = imm32(b, in.Imm)
	}
	return c.jcc(b, slot, cc)
}
