package testprog

import (
	"fmt"
	"math/rand/v2"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// label is a place in an emitter's code.
type label int

// emitter collects the slots of a function and resolves its labels.
type emitter struct {
	insns []abi.Insn
	at    []int // slot of each label, -1 until it is placed
	refs  []emitRef
}

// emitRef is a distance that isn't known yet.
type emitRef struct {
	slot   int
	target label
	field  field
}

func (e *emitter) emit(in ...abi.Insn) { e.insns = append(e.insns, in...) }

func (e *emitter) newLabel() label {
	e.at = append(e.at, -1)
	return label(len(e.at) - 1)
}

func (e *emitter) place(l label) { e.at[l] = len(e.insns) }

// here is a new label at the next slot.
func (e *emitter) here() label {
	l := e.newLabel()
	e.place(l)
	return l
}

// jump emits a branch to a label; gotol has its distance in imm.
func (e *emitter) jump(in abi.Insn, l label) {
	f := inOff
	if in.Op == abi.OpGotol || in.Op == abi.OpCall || in.Op == abi.OpLdImm64 {
		f = inImm
	}
	e.refs = append(e.refs, emitRef{len(e.insns), l, f})
	e.emit(in)
}

// resolve fills in the distances. It fails where one doesn't fit 16 bits.
func (e *emitter) resolve() error {
	for _, r := range e.refs {
		to := e.at[r.target]
		if to < 0 {
			panic("BUG: testprog: label is never placed")
		}
		d := to - r.slot - 1
		if r.field == inImm {
			e.insns[r.slot].Imm = int32(d)
			continue
		}
		if d != int(int16(d)) {
			return fmt.Errorf("testprog: jump at slot %d over %d slots", r.slot, d)
		}
		e.insns[r.slot].Off = int16(d)
	}
	return nil
}

// The forms that random programs choose from: all of the Source dialect that
// this compiler runs, by kind.
var (
	formsALU     = formsWhere(func(f *tables.FormInfo) bool { return isALU(f.Op) })
	formsCond    = formsWhere(func(f *tables.FormInfo) bool { return f.Flow == tables.FlowBranch && f.Op != abi.OpMayGoto })
	formsLoad    = formsWhere(func(f *tables.FormInfo) bool { return f.Op&abi.ClassMask == abi.ClassLDX })
	formsStoreK  = formsWhere(func(f *tables.FormInfo) bool { return f.Op&abi.ClassMask == abi.ClassST })
	formsStoreX  = formsWhere(func(f *tables.FormInfo) bool { return isSTX(f.Op) && f.Op&abi.ModeMask == modeMem })
	formsAtomic  = formsWhere(func(f *tables.FormInfo) bool { return isAtomic(f.Op) && f.Imm.Value < acquire })
	formsAcquire = formsWhere(func(f *tables.FormInfo) bool { return isAtomic(f.Op) && f.Imm.Value == acquire })
	formsRelease = formsWhere(func(f *tables.FormInfo) bool { return isAtomic(f.Op) && f.Imm.Value == release })
)

func isALU(op uint8) bool {
	return op&abi.ClassMask == abi.ClassALU || op&abi.ClassMask == abi.ClassALU64
}
func isSTX(op uint8) bool    { return op&abi.ClassMask == abi.ClassSTX }
func isAtomic(op uint8) bool { return isSTX(op) && op&abi.ModeMask == modeAtomic }

func formsWhere(keep func(*tables.FormInfo) bool) (fs []tables.Form) {
	for f := tables.FormNone + 1; f < tables.NumForms; f++ {
		if tables.Forms[f].Source == tables.Allowed && keep(&tables.Forms[f]) {
			fs = append(fs, f)
		}
	}
	return fs
}

// build makes an instruction of a form. Fields that the form fixes are its
// own, whatever is asked for.
func build(f tables.Form, dst, src uint8, off int16, imm int32) abi.Insn {
	info := &tables.Forms[f]
	if info.Dst.Fixed() {
		dst = uint8(info.Dst.Value)
	}
	if info.Src.Fixed() {
		src = uint8(info.Src.Value)
	}
	if info.Off.Fixed() {
		off = int16(info.Off.Value)
	}
	if info.Imm.Fixed() {
		imm = info.Imm.Value
	}
	return abi.Insn{Op: info.Op, Regs: abi.Registers(dst, src), Off: off, Imm: imm}
}

func insn(op uint8, dst, src uint8, off int16, imm int32) abi.Insn {
	return abi.Insn{Op: op, Regs: abi.Registers(dst, src), Off: off, Imm: imm}
}

// Opcodes that the generators emit themselves.
const (
	opAdd64K = 0x07
	opAdd64X = 0x0f
	opSub64K = 0x17
	opMov64K = 0xb7
	opMov64X = 0xbf
	opMov32K = 0xb4
	opMov32X = 0xbc
	opXor64X = 0xaf
	opXor32X = 0xac
	opLdxW   = 0x61
	opLdxDW  = 0x79
	opStB    = 0x72
	opStDW   = 0x7a
	opStxDW  = 0x7b
	opJeqK   = 0x15
	opJneK   = 0x55
	opJgtX   = 0x2d
	opJleX   = 0xbd
	opAtomDW = 0xdb
)

// pick returns one of the choices.
func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// chance is true in n of 100 cases.
func chance(r *rand.Rand, n int) bool { return r.IntN(100) < n }

// between returns a number from lo to hi, both included.
func between(r *rand.Rand, lo, hi int) int { return lo + r.IntN(hi-lo+1) }

// constant returns a constant of the kind that sits at the edge of an
// encoding, or any one.
func constant(r *rand.Rand) int32 {
	switch r.IntN(6) {
	case 0:
		return pick(r, int32(0), 1, 2, 3, -1, -2, 7, 8, 16, 31, 32, 63, 64)
	case 1:
		return pick(r, int32(126), 127, 128, 129, -127, -128, -129, -130, 255, 256, 0x7fff, 0x8000, 0xffff, 0x10000)
	case 2:
		return pick(r, int32(0x7fffffff), -0x80000000, -0x7fffffff, 0x7ffffffe, 0x55555555, -0x55555556, 0x01020304)
	case 3:
		return int32(between(r, -128, 127))
	case 4:
		return int32(int16(r.Uint32()))
	}
	return int32(r.Uint32())
}

// wideConstant returns a 64-bit constant of each encoding in turn: zero, u32,
// s32, and what needs all 64 bits.
func wideConstant(r *rand.Rand) uint64 {
	switch r.IntN(5) {
	case 0:
		return pick(r, uint64(0), 1, 0x7fffffff, 0x80000000, 0xffffffff)
	case 1:
		return uint64(r.Uint32())
	case 2:
		return uint64(int64(int32(r.Uint32())))
	case 3:
		return pick(r, uint64(0x100000000), 0xffffffff7fffffff, 0xffffffff80000000, 0xffffffffffffffff, 0x8000000000000000, 0x7fffffffffffffff)
	}
	return r.Uint64()
}

// aluConstant returns an immediate that the verifier takes for an operation:
// shift counts below the width, no division by zero.
func aluConstant(r *rand.Rand, op uint8) int32 {
	switch op & abi.OpMask {
	case 0x60, 0x70, 0xc0: // shifts
		if op&abi.ClassMask == abi.ClassALU {
			return int32(pick(r, 0, 1, 2, 31, r.IntN(32)))
		}
		return int32(pick(r, 0, 1, 2, 31, 32, 63, r.IntN(64)))
	case 0x30, 0x90: // division, remainder
		if v := constant(r); v != 0 {
			return v
		}
		return 1
	}
	return constant(r)
}
