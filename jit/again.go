package jit

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// An access to memory in the cage cuts its address to 32 bits first:
//
//	mov r11d, edi
//	mov eax, dword ptr [r12+r11+8]
//
// The next one through the same register needn't, as long as r11 and the
// register have not changed. Such an access is marked, by a 1 in a field that is
// reserved, and has a row without the move. What r11 holds is forgotten
//
//	where a jump leads to          it may come from elsewhere; a jump back leads
//	                               to a CHARGE
//	at CHARGE, calls, and EXIT     the way out and back takes r11
//	at division, atomics, shifts   rows that use it themselves
//	when the register is written
//
// A fault leaves r11 as it was, whether it ends the run or is mended.

// nothingHeld is no register.
const nothingHeld = 16

// noBase is the base of what doesn't access memory by a move to r11.
const noBase = 8

// opcode is what survey wants to know of one.
type opcode struct {
	move, add uint8 // have a bit in common if an addition can follow a move
	base      uint8 // where in Regs the base of the address is, or noBase
	writes    bool  // dst
	forgets   bool  // what r11 holds
	jumps     bool  // by off
}

var opcodes = func() (t [256]opcode) {
	for op := range t {
		t[op] = opcode{base: noBase, forgets: true}
	}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		o := &t[form.Op]
		switch class := form.Op & abi.ClassMask; {
		case form.Off.Use == tables.UseDistance, f == tables.FormJmpGotol:
			o.forgets = false
		case class == abi.ClassALU, class == abi.ClassALU64:
			o.writes = true
			switch form.Op & abi.OpMask {
			case 0x30, 0x90: // division
			case 0x60, 0x70, 0xc0:
				o.forgets = form.Op&abi.SourceX != 0
			default:
				o.forgets = false
			}
		case form.Op == abi.OpLdImm64, f == tables.FormLdSecond:
			o.writes, o.forgets = form.Op == abi.OpLdImm64, false
		}
		switch f {
		case tables.FormLdxMemB, tables.FormLdxMemH, tables.FormLdxMemW, tables.FormLdxMemDw,
			tables.FormLdxMemsxB, tables.FormLdxMemsxH, tables.FormLdxMemsxW:
			*o = opcode{base: 4, writes: true}
		case tables.FormStxMemB, tables.FormStxMemH, tables.FormStxMemW, tables.FormStxMemDw,
			tables.FormStMemB, tables.FormStMemH, tables.FormStMemW, tables.FormStMemDw:
			*o = opcode{base: 0}
		}
	}
	for op := range t {
		switch uint8(op) & abi.ClassMask {
		case abi.ClassJMP, abi.ClassJMP32:
			t[op].jumps = true
		}
	}
	for _, op := range []uint8{abi.OpCall, abi.OpCallx, abi.OpExit, abi.OpCharge, abi.OpGotol} {
		t[op].jumps = false
	}
	const wide, narrow32 = 1, 2
	t[opMoveX].move, t[opMoveX-narrow].move = wide, narrow32
	for _, op := range []uint8{opAddK, opAddX} {
		t[op].add, t[op-narrow].add = wide, narrow32
	}
	return t
}()

// markAgain makes an access one that finds its address in r11.
func markAgain(in *abi.Insn) {
	if in.Op&abi.ClassMask == abi.ClassST {
		in.Regs |= 1 << 4
	} else {
		in.Imm = 1
	}
}
