package interp

import (
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// Prog is a program ready to run. It is never changed.
type Prog struct {
	ops   []op
	count bool // the main program counts may_goto
	trace func(slot int)
}

// Traced returns a program that does the same, and calls f with the slot of
// each instruction right before it is executed. The budget stays what it is.
func (p *Prog) Traced(f func(slot int)) *Prog {
	t := &Prog{ops: slices.Clone(p.ops), count: p.count, trace: f}
	for slot := range t.ops {
		if o := &t.ops[slot]; o.charge == 0 {
			o.charge = traced
		}
	}
	return t
}

// Prepare checks a source program and decodes it. It takes time in proportion
// to the slots. The error is a *bpf.Error: that of bpf.Check, or one that
// wraps bpf.ErrRange about the address of a function beyond the first
// abi.MaxHandles.
func Prepare(p *bpf.Program) (*Prog, error) {
	if err := bpf.Check(p, bpf.Source); err != nil {
		return nil, err
	}
	funcs, err := bpf.Functions(p)
	if err != nil {
		return nil, err
	}
	ops := make([]op, len(p.Insns))
	for slot := 0; slot < len(ops); slot++ {
		ops[slot] = decode(p, slot)
		if p.Insns[slot].Op == abi.OpLdImm64 {
			slot++ // its second half stays opSecond
		}
	}
	for slot, n := range bpf.Charges(p) {
		ops[slot].charge = n
	}
	counts := make([]bool, len(funcs))
	for k, f := range funcs {
		for slot := f.Start; slot < f.End; slot++ {
			counts[k] = counts[k] || ops[slot].code == opMayGoto
		}
	}
	for _, f := range funcs {
		for _, c := range f.Calls {
			ops[c.Slot].count = counts[c.Callee]
		}
		for _, c := range f.Refs {
			if c.Callee >= abi.MaxHandles {
				return nil, &bpf.Error{Slot: c.Slot, Insn: p.Insns[c.Slot], Field: "imm", Err: bpf.ErrRange,
					Reason: fmt.Sprintf("is the address of function %d, and there are %d handles", c.Callee, abi.MaxHandles)}
			}
			ops[c.Slot].imm = abi.FuncHandle(c.Callee)
		}
	}
	return &Prog{ops: ops, count: counts[0]}, nil
}

// decode decodes one instruction of a checked program.
func decode(p *bpf.Program, slot int) op {
	insn := p.Insns[slot]
	o := op{dst: insn.Dst(), src: insn.Src(), off: int32(insn.Off)}
	switch insn.Op & abi.ClassMask {
	case abi.ClassALU64:
		decodeALU(&o, insn, 0)
	case abi.ClassALU:
		decodeALU(&o, insn, wideALU)
	case abi.ClassJMP:
		decodeJump(&o, insn, slot, 0)
	case abi.ClassJMP32:
		decodeJump(&o, insn, slot, wideJmp)
	default:
		decodeMemory(&o, insn)
		o.probe = p.Flag(slot)&bpf.Probe != 0
		if insn.Op == abi.OpLdImm64 {
			o.code, o.src = opConst, zeroReg
			o.imm = uint64(uint32(insn.Imm)) | uint64(uint32(p.Insns[slot+1].Imm))<<32
		}
	}
	if o.code == opSecond {
		panic(fmt.Sprintf("BUG: interp: slot %d passed the check, but is %v", slot, insn))
	}
	return o
}

// operand decodes the second operand of arithmetic and of a branch.
func operand(o *op, insn bpf.Insn) {
	if insn.Op&abi.SourceX == 0 {
		o.src, o.imm = zeroReg, uint64(int64(insn.Imm))
	}
}

// alu gives the operation of 64 bits by the upper four bits of the opcode
// (RFC 9669, section 4.1).
var alu = [16]code{
	0x0: opAdd, 0x1: opSub, 0x2: opMul, 0x3: opDiv, 0x4: opOr, 0x5: opAnd, 0x6: opLsh, 0x7: opRsh,
	0x8: opNeg, 0x9: opMod, 0xa: opXor, 0xb: opMov, 0xc: opArsh,
}

// endian is the operation by which bytes are swapped.
const endian = 0xd0

func decodeALU(o *op, insn bpf.Insn, wide code) {
	if insn.Op&abi.OpMask == endian {
		// le of a little-endian machine only cuts off; bswap has class
		// ALU64, be the source bit.
		swap := insn.Op&abi.ClassMask == abi.ClassALU64 || insn.Op&abi.SourceX != 0
		o.code = map[int32]code{16: opLow16, 32: opLow32, 64: opLow64}[insn.Imm]
		if swap {
			o.code += opSwap16 - opLow16
		}
		return
	}
	operand(o, insn)
	o.code = alu[insn.Op>>4]
	switch {
	case o.code == opDiv && insn.Off == 1:
		o.code = opSdiv
	case o.code == opMod && insn.Off == 1:
		o.code = opSmod
	case o.code == opMov && insn.Off == 8:
		o.code = opMovsx8
	case o.code == opMov && insn.Off == 16:
		o.code = opMovsx16
	case o.code == opMov && insn.Off == 32:
		o.code = opMovsx32
	}
	o.code += wide
}

// jumps gives the operation of 64 bits by the upper four bits of the opcode
// (RFC 9669, section 4.3).
var jumps = [16]code{
	0x1: opJeq, 0x2: opJgt, 0x3: opJge, 0x4: opJset, 0x5: opJne, 0x6: opJsgt, 0x7: opJsge,
	0xa: opJlt, 0xb: opJle, 0xc: opJslt, 0xd: opJsle,
}

func decodeJump(o *op, insn bpf.Insn, slot int, wide code) {
	if d, ok := bpf.Distance(insn); ok {
		o.off = int32(slot) + 1 + d
	}
	switch insn.Op {
	case abi.OpJa, abi.OpGotol:
		o.code = opJump
	case abi.OpMayGoto:
		o.code = opMayGoto
	case abi.OpExit:
		o.code = opExit
	case abi.OpCallx:
		o.code = opCallx
	case abi.OpCall:
		if insn.Src() == abi.CallLocal {
			o.code = opCall
		} else {
			o.code, o.imm = opHelper, uint64(uint32(insn.Imm))
		}
	default:
		operand(o, insn)
		o.code = jumps[insn.Op>>4] + wide
	}
}

// Access modes (RFC 9669, section 5).
const (
	modeMem    = 0x60
	modeMemsx  = 0x80
	modeAtomic = 0xc0
)

func decodeMemory(o *op, insn bpf.Insn) {
	o.size = uint8(abi.AccessSize(insn.Op))
	mode := insn.Op & abi.ModeMask
	switch class := insn.Op & abi.ClassMask; {
	case class == abi.ClassLDX && mode == modeMem:
		o.code = opLoad
	case class == abi.ClassLDX && mode == modeMemsx:
		o.code = opLoadSigned
	case class == abi.ClassST && mode == modeMem:
		o.code, o.src, o.imm = opStore, zeroReg, uint64(int64(insn.Imm))
	case class == abi.ClassSTX && mode == modeMem:
		o.code = opStore
	case class == abi.ClassSTX && mode == modeAtomic:
		o.code = atomics[insn.Imm]
	}
}

// atomics gives the operation by the immediate (RFC 9669, section 5.3).
var atomics = map[int32]code{
	0x00: opAtomicAdd, 0x40: opAtomicOr, 0x50: opAtomicAnd, 0xa0: opAtomicXor,
	0x01: opFetchAdd, 0x41: opFetchOr, 0x51: opFetchAnd, 0xa1: opFetchXor,
	0xe1: opExchange, 0xf1: opCompareExchange,
	0x100: opLoadAcquire, 0x110: opStoreRelease,
}
