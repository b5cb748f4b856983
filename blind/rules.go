package blind

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// A rule says what becomes of a slot that is, as a word of 64 bits, in. With
// r a random number it is
//
//	one slot      own
//	three slots   mov | (r^imm)<<32, xor | r<<32, own
//
// where own is in&mask | add | in's dst * twice. The instruction itself stands
// own slots behind the first.
type rule struct {
	mask, add uint64
	mov, xor  uint32
	step      step
	twice     uint32
	flags     uint32 // of four slots
	own       uint32
}

// dstMask is where a slot has its dst. Times copyDst it is in src, too.
const (
	dstMask = 0x0f00
	copyDst = 0x11
)

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
)

func (s step) slots() int   { return int(uint32(s)) }
func (s step) numbers() int { return int(s >> 32) }

// The numbers of rules. Those of opcodes come behind.
const (
	keep      = 0 // stays as it is
	upperHalf = 1 // an ldimm64's first slot, rewritten as its upper half
	lowerHalf = 2 // its second slot
	zero      = 3 // xor dst, dst
	first     = 4 // of the opcodes
)

// rules has all rules, and steps again how far they go.
var (
	rules [256]rule
	steps [256]step
)

// choices says how the rule of a slot is chosen. Its key is the opcode, and
// 256 more if imm is 0.
var choices struct {
	// number has the rule.
	number [512]uint8
	// usable has ones for register fields for which that holds, else 0, which
	// is keep. Which ones, the row says: those that leave AX alone, and with
	// ldimm64 those that are a constant to hide.
	row    [512]uint32
	usable [2 * 256]uint8
	// back is 1 for the second half of a constant: the registers of the first
	// one count, else 0.
	back [256]uint8
	// jump and jumpRegs have a bit in common if there is a distance.
	jump, jumpRegs [256]uint8
}

const constantRow = 256 // of choices.usable

// kept takes the rule away from what is marked Inserted.
var kept = [bpf.Inserted + 1]uint8{0: 0xff}

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
	rules[upperHalf] = hide(mov64, xor64, movReg)
	rules[upperHalf].step, rules[upperHalf].own, rules[upperHalf].flags = upperStep, upperLen-1, 0x010101
	rules[lowerHalf] = hide(mov32, xor32, orReg)
	rules[zero] = rule{add: uint64(xorReg), twice: copyDst, step: oneSlot}
	next := uint8(first)
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		number := next
		byRegister := form.Op | abi.SourceX
		switch form.Blind {
		case tables.BlindAlu32, tables.BlindMov32, tables.BlindJmp32:
			rules[next] = hide(mov32, xor32, byRegister)
		case tables.BlindAlu64, tables.BlindMov64, tables.BlindJmp64:
			rules[next] = hide(mov64, xor64, byRegister)
		case tables.BlindStore:
			rules[next] = hide(mov64, xor64, form.Op|abi.ClassSTX)
		case tables.BlindImm64:
			number = upperHalf
			choose(form.Op, constantRow, number, number)
			continue
		case tables.BlindSecond:
			number = lowerHalf
			choose(form.Op, constantRow, number, number)
			choices.back[form.Op] = 1
			continue
		default:
			continue
		}
		if choices.number[form.Op] != keep {
			continue // another form of the opcode had the same rule
		}
		of0 := number
		if form.Blind == tables.BlindMov32 || form.Blind == tables.BlindMov64 {
			of0 = zero
		}
		choose(form.Op, 0, number, of0)
		next++
	}
	for n := range rules {
		steps[n] = rules[n].step
	}
	for regs := range 256 {
		in := bpf.Insn{Op: abi.OpLdImm64, Regs: uint8(regs)}
		choices.jumpRegs[regs] = jumpAlways
		switch in.Src() {
		case abi.CallLocal:
			choices.jumpRegs[regs] |= jumpCall
		case abi.Imm64Func:
			choices.jumpRegs[regs] |= jumpFunc
		}
		if in.Dst() == abi.AX || in.Src() == abi.AX {
			continue
		}
		choices.usable[regs] = 0xff
		if f, _ := tables.FormOf(in.Op, in.Regs, 0, 0); tables.Forms[f].Blind == tables.BlindImm64 {
			choices.usable[constantRow+regs] = 0xff
		}
	}
	for op := range 256 {
		for src, bit := range map[uint8]uint8{abi.CallLocal: jumpCall, abi.Imm64Func: jumpFunc, 0: jumpAlways} {
			if _, ok := bpf.Distance(bpf.Insn{Op: uint8(op), Regs: abi.Registers(0, src)}); ok {
				choices.jump[op] |= bit
			}
		}
	}
}

// Bits of choices.jump: there is a distance whatever src is, or only with src
// as in calls of functions, or as in address constants.
const (
	jumpAlways = 1 << iota
	jumpCall
	jumpFunc
)

// choose enters the rules of an opcode, for an imm other than 0 and for 0.
func choose(op uint8, row uint32, number, of0 uint8) {
	for key, n := range map[int]uint8{int(op): number, 256 + int(op): of0} {
		choices.number[key], choices.row[key] = n, row
	}
}

// hide returns the rule that makes a constant in AX for the opcode own.
func hide(mov, xor, own uint8) rule {
	return rule{
		mask:  0xffff0000 | dstMask, // off and dst
		add:   uint64(own) | abi.AX<<12,
		mov:   uint32(mov) | abi.AX<<8,
		xor:   uint32(xor) | abi.AX<<8,
		step:  hiddenStep,
		flags: 0x0101,
		own:   hiddenLen - 1,
	}
}

// set makes an instruction of a word. The compiler makes one store of it.
func set(in *bpf.Insn, w uint64) {
	in.Op, in.Regs, in.Off, in.Imm = uint8(w), uint8(w>>8), int16(w>>16), int32(w>>32)
}
