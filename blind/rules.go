package blind

import (
	"math"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// A rule says how the constant of an opcode is hidden. With r a random number,
// the slot becomes three:
//
//	mov | (r^imm)<<32    xor | r<<32    (the instruction | anySource) ^ own
//
// where the last has an imm of 0, and own makes it read AX instead of imm. Of a 64-bit
// constant each half becomes as much, but takes imm from the other one, and the
// instruction is the first half; the upper half has one slot more, shift, in front of
// the last.
type rule struct {
	mov, xor uint16 // op and regs
	own      uint32
	// reserved has ones where the slot with the constant must be 0: off, in an
	// instruction that becomes one where it may be something else, a move one with a
	// sign, and all of a second half.
	reserved uint32
	other    int32 // by how many slots further the constant is
}

// How many slots a slot with a constant becomes, and the upper half of a 64-bit
// constant.
const (
	hiddenLen = 3
	upperLen  = 4
)

// Classes of slots. They are bits, and a slot is in a class if its opcode, its
// dst and its src are.
const (
	hideALU   = 1 << iota // arithmetic with a constant to hide
	hideJump              // a branch that has one
	hideStore             // a store of one
	upperHalf             // the first half of a 64-bit one
	distance              // a jump
	callLocal             // a call of a function
	funcAddr              // the address of one
	move                  // of a constant: if that is 0, it is not hidden

	hides = hideALU | hideJump | hideStore | upperHalf
	leads = distance | callLocal | funcAddr // somewhere
)

// classTable has the classes of each half of an opcode, of dst and of src: a slot
// is in those that all four have in common. So sixteen numbers are looked up at a
// time by one instruction.
//
// The halves of opcodes let some be jumps that no instruction has; a bpf.Mender finds
// no distance in them.
type classTable struct{ opLow, opHigh, dst, src [16]uint8 }

var (
	// rules has a rule for each opcode that hides, and for the second half of a
	// 64-bit constant.
	rules   [256]rule
	classes classTable
)

// of returns the classes of a slot.
func (t *classTable) of(op, regs uint8) uint8 {
	return t.opLow[op&15] & t.opHigh[op>>4] & t.dst[regs&15] & t.src[regs>>4]
}

// enter puts an opcode into a class.
func (t *classTable) enter(op, class uint8) {
	t.opLow[op&15] |= class
	t.opHigh[op>>4] |= class
}

// anySource is src 15, in an instruction.
const anySource = 0xf000

// shift is the instruction that makes an upper half of AX.
var shift = uint64(lsh64) | abi.AX<<8 | 32<<32

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
	t := &classes
	for r := range t.dst {
		t.dst[r], t.src[r] = distance|callLocal|funcAddr, distance
		if r != abi.AX {
			t.dst[r] |= hides | move
		}
	}
	t.src[0] |= hideALU | hideJump | hideStore | move // src is reserved
	t.src[abi.CallLocal] |= callLocal
	t.src[abi.Imm64Func] |= funcAddr
	for f := tables.Form(1); f < tables.NumForms; f++ {
		enter(&tables.Forms[f])
	}
}

// enter enters a form into rules and classes.
func enter(form *tables.FormInfo) {
	const (
		toAX = abi.AX << 8  // dst = AX
		ofAX = abi.AX << 12 // src = AX
		off  = 0xffff << 16
	)
	t := &classes
	toOwn := func(op uint8) uint32 { return uint32(form.Op^op) | (anySource ^ ofAX) }
	switch distant := form.Imm.Use == tables.UseDistance; {
	case form.Op == abi.OpCall && distant:
		t.enter(form.Op, callLocal)
	case form.Op == abi.OpLdImm64 && distant:
		t.enter(form.Op, funcAddr)
	case distant, form.Off.Use == tables.UseDistance:
		t.enter(form.Op, distance)
	}
	r := rule{mov: uint16(mov64) | toAX, xor: uint16(xor64) | toAX, own: toOwn(form.Op | abi.SourceX)}
	switch form.Blind {
	case tables.BlindAlu32, tables.BlindMov32, tables.BlindJmp32, tables.BlindSecond:
		r.mov, r.xor = uint16(mov32)|toAX, uint16(xor32)|toAX
	}
	switch form.Blind {
	case tables.BlindNone:
		return
	case tables.BlindMov32, tables.BlindMov64:
		t.enter(form.Op, hideALU|move)
		r.reserved = off
	case tables.BlindAlu32, tables.BlindAlu64:
		t.enter(form.Op, hideALU)
	case tables.BlindJmp32, tables.BlindJmp64:
		t.enter(form.Op, hideJump)
	case tables.BlindStore:
		t.enter(form.Op, hideStore)
		r.own = toOwn(form.Op ^ abi.ClassST ^ abi.ClassSTX)
	case tables.BlindSecond:
		r.own = uint32(abi.OpLdImm64^orReg) | (anySource ^ ofAX)
		r.reserved, r.other = off, -1
	case tables.BlindImm64:
		t.enter(form.Op, upperHalf)
		r.own = toOwn(movReg)
		r.reserved, r.other = math.MaxUint32, 1
		for src := range t.src {
			if f, ok := tables.FormOf(form.Op, uint8(src)<<4, 0, 0); ok && src != abi.AX && tables.Forms[f].Blind == tables.BlindImm64 {
				t.src[src] |= upperHalf
			}
		}
	}
	rules[form.Op] = r
}

// set makes an instruction of a word. The compiler makes one store of it.
func set(in *bpf.Insn, w uint64) {
	in.Op, in.Regs, in.Off, in.Imm = uint8(w), uint8(w>>8), int16(w>>16), int32(w>>32)
}
