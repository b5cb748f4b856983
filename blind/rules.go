package blind

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// A rule says how the constant of a slot is hidden. With r a random number,
// these stand in front of it:
//
//	mov | (r^imm)<<32, xor | r<<32
//
// and it gets the opcode op and reads AX instead of imm. It stands own slots
// behind the first.
type rule struct {
	mov, xor uint32
	own      uint32
	// reserved has ones where off is 0 in the instruction, but may be something
	// else in the one of opcode op: a move becomes one with a sign.
	reserved int16
	op       uint8
}

// How many slots an instruction with a constant becomes, and the upper half
// of a 64-bit constant.
const (
	hiddenLen = 3
	upperLen  = 4
)

// The numbers of rules. Those of opcodes come behind.
const (
	keep      = 0 // stays as it is
	zero      = 1 // becomes xor dst, dst
	upperHalf = 2 // an ldimm64's first slot, rewritten as its upper half
	lowerHalf = 3 // its second slot
	first     = 4 // of the opcodes
)

// rules has all rules.
var rules [256]rule

// choices says how the rule of a slot is chosen. Its key is the opcode, and
// 256 more if imm is 0.
var choices choiceTable

type choiceTable struct {
	rule [512]uint8
	// usable has ones for register fields for which that holds, else 0, which
	// is keep. Which ones, the row says: those that leave AX alone and have no
	// src, which is reserved, and with ldimm64 those that are a constant to hide.
	row    [512]uint32
	usable [2 * 256]uint8
	// other is 1 where something is to be done besides: a jump, a 64-bit
	// constant, a zero.
	other [512]uint8
	// back is 1 for the second half of a constant: the registers of the first
	// one count, else 0.
	back [256]uint8
	// hides is 1 for rules that hide a constant. slots is how many slots they
	// make of one.
	hides, slots [256]uint8
	// distance of the opcode and distanceRegs of the registers have a bit in
	// common if a slot may have a distance.
	distance, distanceRegs [256]uint8
}

const (
	constantRow = 256 // of choices.usable
	zeroKey     = 256 // added to the key where imm is 0
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
	c := &choices
	for n := range rules {
		c.slots[n] = 1
	}
	enter := func(n uint8, r rule, slots uint8) {
		r.mov |= abi.AX << 8
		r.xor |= abi.AX << 8
		r.own = uint32(slots) - 1
		rules[n], c.hides[n], c.slots[n] = r, 1, slots
	}
	alu64, alu32 := rule{mov: uint32(mov64), xor: uint32(xor64)}, rule{mov: uint32(mov32), xor: uint32(xor32)}
	enter(upperHalf, alu64, upperLen)
	enter(lowerHalf, alu32, hiddenLen)
	next := uint8(first)
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		op := int(form.Op)
		if form.Off.Use == tables.UseDistance || form.Imm.Use == tables.UseDistance {
			c.other[op], c.other[256+op] = 1, 1
		}
		r := alu64
		r.op = form.Op | abi.SourceX
		switch form.Blind {
		case tables.BlindNone:
			continue
		case tables.BlindImm64:
			c.rule[op], c.rule[256+op] = upperHalf, upperHalf
			c.row[op], c.row[256+op] = constantRow, constantRow
			c.other[op], c.other[256+op] = 1, 1
			continue
		case tables.BlindSecond:
			c.rule[op], c.rule[256+op] = lowerHalf, lowerHalf
			c.row[op], c.row[256+op] = constantRow, constantRow
			c.back[op] = 1
			continue
		case tables.BlindAlu32, tables.BlindMov32, tables.BlindJmp32:
			r.mov, r.xor = alu32.mov, alu32.xor
		case tables.BlindStore:
			r.op = form.Op | abi.ClassSTX
		}
		if form.Blind == tables.BlindMov32 || form.Blind == tables.BlindMov64 {
			r.reserved = -1
		}
		if c.rule[op] != keep {
			continue // another form of the opcode had the same rule
		}
		enter(next, r, hiddenLen)
		c.rule[op], c.rule[256+op] = next, next
		if form.Blind == tables.BlindMov32 || form.Blind == tables.BlindMov64 {
			c.rule[256+op], c.other[256+op] = zero, 1
		}
		next++
	}
	for src, bit := range map[uint8]uint8{0: 1, abi.CallLocal: 2, abi.Imm64Func: 4} {
		for op := range 256 {
			if _, ok := bpf.Distance(bpf.Insn{Op: uint8(op), Regs: abi.Registers(0, src)}); ok {
				c.distance[op] |= bit
			}
		}
		for dst := range uint8(16) {
			c.distanceRegs[abi.Registers(dst, src)] |= bit
		}
	}
	for regs := range c.distanceRegs {
		c.distanceRegs[regs] |= 1 // a jump has one, whatever src is
	}
	for regs := range 256 {
		in := bpf.Insn{Op: abi.OpLdImm64, Regs: uint8(regs)}
		if in.Dst() == abi.AX || in.Src() == abi.AX {
			continue
		}
		if in.Src() == 0 {
			c.usable[regs] = 0xff
		}
		if f, _ := tables.FormOf(in.Op, in.Regs, 0, 0); tables.Forms[f].Blind == tables.BlindImm64 {
			c.usable[constantRow+regs] = 0xff
		}
	}
}

// set makes an instruction of a word. The compiler makes one store of it.
func set(in *bpf.Insn, w uint64) {
	in.Op, in.Regs, in.Off, in.Imm = uint8(w), uint8(w>>8), int16(w>>16), int32(w>>32)
}
