package blind

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// A rule says what becomes of a slot that is, as a word of 64 bits, in. With
// r a random number it is
//
//	one slot      in&mask | own
//	three slots   mov | (r^imm)<<32, xor | r<<32, in&mask | own
type rule struct {
	mask, own uint64
	mov, xor  uint32
	step      step
}

// A step counts slots that are made, in its lower 32 bits, and the random
// numbers that they take, in its upper ones.
type step uint64

const (
	oneSlot    step = 1
	hiddenStep step = 1<<32 | hiddenLen
	upperStep  step = 1<<32 | upperLen
)

// How many slots an instruction with a constant becomes, the upper half of a
// 64-bit constant, and both halves.
const (
	hiddenLen = 3
	upperLen  = 4
	pairLen   = upperLen + hiddenLen
)

func (s step) slots() int   { return int(uint32(s)) }
func (s step) numbers() int { return int(s >> 32) }

// The numbers of rules. Those of opcodes come behind.
const (
	keep      = 0  // stays as it is
	upperHalf = 1  // an ldimm64's first slot, rewritten as its upper half
	lowerHalf = 2  // its second slot
	zeros     = 16 // xor dst, dst: one for each register
	first     = 32 // of the opcodes
)

// rules has all rules. Numbers that are not in use have that of keep.
var rules [256]rule

// numbers has the rule of each opcode, first for an imm other than 0, then
// for 0.
var numbers [2][256]uint8

// usable has ones for each register field that leaves AX alone, else 0.
// constant has those of ldimm64 that are a constant to hide.
var (
	usable   [256]uint8
	constant [256]bool
)

// Opcodes that rewrites are made of.
var (
	mov32  = tables.Forms[tables.FormAlu32MovK].Op
	xor32  = tables.Forms[tables.FormAlu32XorK].Op
	mov64  = tables.Forms[tables.FormAlu64MovK].Op
	xor64  = tables.Forms[tables.FormAlu64XorK].Op
	lsh64  = tables.Forms[tables.FormAlu64LshK].Op
	movReg = tables.Forms[tables.FormAlu64MovX].Op
	orReg  = tables.Forms[tables.FormAlu64OrX].Op
	xorReg = tables.Forms[tables.FormAlu64XorX].Op
)

// The rules come from the blind column of gen/bpf.txt.
func init() {
	for n := range rules {
		rules[n] = rule{mask: ^uint64(0), step: oneSlot}
	}
	for dst := range 16 {
		xor := bpf.Insn{Op: xorReg, Regs: abi.Registers(uint8(dst), uint8(dst))}
		rules[zeros+dst] = rule{own: word(&xor), step: oneSlot}
	}
	for n, s := range map[uint8]step{upperHalf: upperStep, lowerHalf: hiddenStep} {
		rules[n].step = s
	}
	for _, list := range []*[256]uint8{&numbers[0], &numbers[1]} {
		list[abi.OpLdImm64], list[tables.Forms[tables.FormLdSecond].Op] = upperHalf, lowerHalf
	}
	next := uint8(first)
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		var r rule
		byRegister := form.Op | abi.SourceX
		switch form.Blind {
		case tables.BlindAlu32, tables.BlindMov32, tables.BlindJmp32:
			r = hide(mov32, xor32, byRegister)
		case tables.BlindAlu64, tables.BlindMov64, tables.BlindJmp64:
			r = hide(mov64, xor64, byRegister)
		case tables.BlindStore:
			r = hide(mov64, xor64, form.Op|abi.ClassSTX)
		default:
			continue
		}
		if numbers[0][form.Op] != 0 {
			continue // another form of the opcode had the same rule
		}
		rules[next] = r
		numbers[0][form.Op], numbers[1][form.Op] = next, next
		if form.Blind == tables.BlindMov32 || form.Blind == tables.BlindMov64 {
			numbers[1][form.Op] = zeros
		}
		next++
	}
	for regs := range usable {
		in := bpf.Insn{Op: abi.OpLdImm64, Regs: uint8(regs)}
		if in.Dst() == abi.AX || in.Src() == abi.AX {
			continue
		}
		usable[regs] = 0xff
		f, _ := tables.FormOf(in.Op, in.Regs, 0, 0)
		constant[regs] = tables.Forms[f].Blind == tables.BlindImm64
	}
}

// hide returns the rule that makes a constant in AX for the opcode own.
func hide(mov, xor, own uint8) rule {
	return rule{
		mask: 0xffff0f00, // off and dst
		own:  uint64(own) | abi.AX<<12,
		mov:  uint32(mov) | abi.AX<<8,
		xor:  uint32(xor) | abi.AX<<8,
		step: hiddenStep,
	}
}

// word returns an instruction as the little-endian word that it is on the wire.
func word(in *bpf.Insn) uint64 {
	return uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
}

// set makes an instruction of a word. The compiler makes one store of it.
func set(in *bpf.Insn, w uint64) {
	in.Op, in.Regs, in.Off, in.Imm = uint8(w), uint8(w>>8), int16(w>>16), int32(w>>32)
}
