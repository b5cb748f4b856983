package testprog

import (
	"fmt"
	"math"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// Reg is a BPF register.
type Reg uint8

// The registers. AX stands in translated programs only.
const (
	R0 Reg = iota
	R1
	R2
	R3
	R4
	R5
	R6
	R7
	R8
	R9
	R10
	AX
)

// Operand is a second operand: a register, or a constant that fits 32 bits,
// signed or unsigned.
type Operand interface{ Reg | int }

// Item is a part of a program: instructions, a label, or a reference to one.
type Item struct {
	insns  []abi.Insn
	label  string // defined here
	target string // of insns[0]
	field  field  // where the distance to the target goes
	parts  []Item
}

// field of an instruction that holds a distance.
type field uint8

const (
	none field = iota
	inOff
	inImm
)

// Parse reads a program in the notation of bpf.Parse.
func Parse(t testing.TB, text string) *bpf.Program {
	t.Helper()
	insns, err := bpf.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &bpf.Program{Insns: insns}
}

// Assemble lays out the items and resolves the labels. It fails for a label
// that is missing, is defined twice, or is too far away.
func Assemble(items ...Item) ([]abi.Insn, error) {
	var out []abi.Insn
	var refs []ref
	labels := map[string]int{}
	if err := layout(items, &out, &refs, labels); err != nil {
		return nil, err
	}
	for _, r := range refs {
		to, ok := labels[r.item.target]
		if !ok {
			return nil, fmt.Errorf("testprog: no label %q", r.item.target)
		}
		d := to - r.slot - 1
		switch r.item.field {
		case inOff:
			if d != int(int16(d)) {
				return nil, fmt.Errorf("testprog: label %q is %d slots away", r.item.target, d)
			}
			out[r.slot].Off = int16(d)
		case inImm:
			out[r.slot].Imm = int32(d)
		}
	}
	return out, nil
}

type ref struct {
	slot int
	item Item
}

func layout(items []Item, out *[]abi.Insn, refs *[]ref, labels map[string]int) error {
	for _, it := range items {
		if it.label != "" {
			if _, ok := labels[it.label]; ok {
				return fmt.Errorf("testprog: label %q is defined twice", it.label)
			}
			labels[it.label] = len(*out)
		}
		if it.target != "" {
			*refs = append(*refs, ref{len(*out), it})
		}
		*out = append(*out, it.insns...)
		if err := layout(it.parts, out, refs, labels); err != nil {
			return err
		}
	}
	return nil
}

// MustAssemble is Assemble for programs that are known to be right.
func MustAssemble(items ...Item) []abi.Insn {
	insns, err := Assemble(items...)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return insns
}

// Label names the next instruction.
func Label(name string) Item { return Item{label: name} }

// Block is several items as one.
func Block(items ...Item) Item { return Item{parts: items} }

// Repeat is n times the same items, which must not define labels.
func Repeat(n int, items ...Item) Item {
	var b Item
	for range n {
		b.parts = append(b.parts, items...)
	}
	return b
}

// Raw is instructions as they are.
func Raw(insns ...abi.Insn) Item { return Item{insns: insns} }

func one(op uint8, dst, src Reg, off int16, imm int32) Item {
	return Item{insns: []abi.Insn{{Op: op, Regs: abi.Registers(uint8(dst), uint8(src)), Off: off, Imm: imm}}}
}

// imm32 checks a constant, which may be written signed or unsigned.
func imm32(v int) int32 {
	if v < math.MinInt32 || int64(v) > math.MaxUint32 {
		panic(fmt.Sprintf("BUG: testprog: constant %#x doesn't fit 32 bits", v))
	}
	return int32(uint32(v))
}

// binary is an instruction whose second operand selects the K or the X form.
func binary[T Operand](op uint8, dst Reg, src T, off int16) Item {
	switch v := any(src).(type) {
	case Reg:
		return one(op|abi.SourceX, dst, v, off, 0)
	case int:
		return one(op, dst, 0, off, imm32(v))
	}
	panic("BUG: unreachable")
}

// Arithmetic on 64 bits: dst = dst op src.

func Add64[T Operand](dst Reg, src T) Item  { return binary(0x07, dst, src, 0) }
func Sub64[T Operand](dst Reg, src T) Item  { return binary(0x17, dst, src, 0) }
func Mul64[T Operand](dst Reg, src T) Item  { return binary(0x27, dst, src, 0) }
func Div64[T Operand](dst Reg, src T) Item  { return binary(0x37, dst, src, 0) }
func SDiv64[T Operand](dst Reg, src T) Item { return binary(0x37, dst, src, 1) }
func Or64[T Operand](dst Reg, src T) Item   { return binary(0x47, dst, src, 0) }
func And64[T Operand](dst Reg, src T) Item  { return binary(0x57, dst, src, 0) }
func Lsh64[T Operand](dst Reg, src T) Item  { return binary(0x67, dst, src, 0) }
func Rsh64[T Operand](dst Reg, src T) Item  { return binary(0x77, dst, src, 0) }
func Mod64[T Operand](dst Reg, src T) Item  { return binary(0x97, dst, src, 0) }
func SMod64[T Operand](dst Reg, src T) Item { return binary(0x97, dst, src, 1) }
func Xor64[T Operand](dst Reg, src T) Item  { return binary(0xa7, dst, src, 0) }
func Mov64[T Operand](dst Reg, src T) Item  { return binary(0xb7, dst, src, 0) }
func Arsh64[T Operand](dst Reg, src T) Item { return binary(0xc7, dst, src, 0) }
func Neg64(dst Reg) Item                    { return one(0x87, dst, 0, 0, 0) }

// Arithmetic on 32 bits; the upper half of dst becomes zero.

func Add32[T Operand](dst Reg, src T) Item  { return binary(0x04, dst, src, 0) }
func Sub32[T Operand](dst Reg, src T) Item  { return binary(0x14, dst, src, 0) }
func Mul32[T Operand](dst Reg, src T) Item  { return binary(0x24, dst, src, 0) }
func Div32[T Operand](dst Reg, src T) Item  { return binary(0x34, dst, src, 0) }
func SDiv32[T Operand](dst Reg, src T) Item { return binary(0x34, dst, src, 1) }
func Or32[T Operand](dst Reg, src T) Item   { return binary(0x44, dst, src, 0) }
func And32[T Operand](dst Reg, src T) Item  { return binary(0x54, dst, src, 0) }
func Lsh32[T Operand](dst Reg, src T) Item  { return binary(0x64, dst, src, 0) }
func Rsh32[T Operand](dst Reg, src T) Item  { return binary(0x74, dst, src, 0) }
func Mod32[T Operand](dst Reg, src T) Item  { return binary(0x94, dst, src, 0) }
func SMod32[T Operand](dst Reg, src T) Item { return binary(0x94, dst, src, 1) }
func Xor32[T Operand](dst Reg, src T) Item  { return binary(0xa4, dst, src, 0) }
func Mov32[T Operand](dst Reg, src T) Item  { return binary(0xb4, dst, src, 0) }
func Arsh32[T Operand](dst Reg, src T) Item { return binary(0xc4, dst, src, 0) }
func Neg32(dst Reg) Item                    { return one(0x84, dst, 0, 0, 0) }

// MovSX64 copies and extends the sign of the lowest 8, 16 or 32 bits.
func MovSX64(bits int16, dst, src Reg) Item { return one(0xbf, dst, src, bits, 0) }

// MovSX32 copies and extends the sign of the lowest 8 or 16 bits to 32.
func MovSX32(bits int16, dst, src Reg) Item { return one(0xbc, dst, src, bits, 0) }

// ToLE converts the lowest 16, 32 or 64 bits to little-endian order, ToBE to
// big-endian order; Swap swaps their bytes. The rest becomes zero.
func ToLE(bits int32, dst Reg) Item { return one(0xd4, dst, 0, 0, bits) }
func ToBE(bits int32, dst Reg) Item { return one(0xdc, dst, 0, 0, bits) }
func Swap(bits int32, dst Reg) Item { return one(0xd7, dst, 0, 0, bits) }

// Const64 loads 64 bits; it takes two slots.
func Const64(dst Reg, v uint64) Item { return wide(dst, abi.Imm64Value, int32(v), int32(v>>32)) }

// MapFD loads the address of a map, MapValue that of its first value plus off.
func MapFD(dst Reg, fd int) Item { return wide(dst, abi.Imm64MapFD, int32(fd), 0) }
func MapValue(dst Reg, fd int, off int32) Item {
	return wide(dst, abi.Imm64MapValue, int32(fd), off)
}

// FuncAddr loads the address of the function at a label.
func FuncAddr(dst Reg, label string) Item {
	it := wide(dst, abi.Imm64Func, 0, 0)
	it.target, it.field = label, inImm
	return it
}

func wide(dst Reg, kind uint8, lo, hi int32) Item {
	it := one(abi.OpLdImm64, dst, Reg(kind), 0, lo)
	it.insns = append(it.insns, abi.Insn{Imm: hi})
	return it
}

// Size is the size of an access.
type Size uint8

// The sizes: 1, 2, 4 and 8 bytes.
const (
	B  Size = abi.SizeB
	H  Size = abi.SizeH
	W  Size = abi.SizeW
	DW Size = abi.SizeDW
)

// Modes of loads and stores, and PROBE_MEM of translated programs.
const (
	modeMem    = 0x60
	modeMemSX  = 0x80
	modeAtomic = 0xc0
)

// Load loads from base+off, LoadSX extends the sign.
func Load(s Size, dst, base Reg, off int16) Item {
	return one(modeMem|uint8(s)|abi.ClassLDX, dst, base, off, 0)
}
func LoadSX(s Size, dst, base Reg, off int16) Item {
	return one(modeMemSX|uint8(s)|abi.ClassLDX, dst, base, off, 0)
}

// Store stores a register or a constant to base+off.
func Store[T Operand](s Size, base Reg, off int16, src T) Item {
	switch v := any(src).(type) {
	case Reg:
		return one(modeMem|uint8(s)|abi.ClassSTX, base, v, off, 0)
	case int:
		return one(modeMem|uint8(s)|abi.ClassST, base, 0, off, imm32(v))
	}
	panic("BUG: unreachable")
}

// Operations of Atomic. Those with Fetch leave the old value in src, AtomicCmpXch
// leaves it in R0.
const (
	AtomicAdd    = 0x00
	AtomicOr     = 0x40
	AtomicAnd    = 0x50
	AtomicXor    = 0xa0
	Fetch        = 0x01
	AtomicXchg   = 0xe1
	AtomicCmpXch = 0xf1
	acquire      = 0x100
	release      = 0x110
)

// Atomic is an atomic operation on 4 or 8 bytes at base+off.
func Atomic(s Size, op int32, base Reg, off int16, src Reg) Item {
	return one(modeAtomic|uint8(s)|abi.ClassSTX, base, src, off, op)
}

// LoadAcquire and StoreRelease are a load and a store of any size with order.
func LoadAcquire(s Size, dst, base Reg, off int16) Item { return Atomic(s, acquire, dst, off, base) }
func StoreRelease(s Size, base Reg, off int16, src Reg) Item {
	return Atomic(s, release, base, off, src)
}

// Cond is a condition of a jump.
type Cond uint8

// The conditions; those with S compare signed numbers. SET is dst & src != 0.
const (
	EQ  Cond = 0x10
	GT  Cond = 0x20
	GE  Cond = 0x30
	SET Cond = 0x40
	NE  Cond = 0x50
	SGT Cond = 0x60
	SGE Cond = 0x70
	LT  Cond = 0xa0
	LE  Cond = 0xb0
	SLT Cond = 0xc0
	SLE Cond = 0xd0
)

// JumpIf jumps to the label if the 64-bit comparison holds, JumpIf32 compares
// the lower halves.
func JumpIf[T Operand](dst Reg, c Cond, src T, label string) Item {
	return to(label, inOff, binary(uint8(c)|abi.ClassJMP, dst, src, 0))
}
func JumpIf32[T Operand](dst Reg, c Cond, src T, label string) Item {
	return to(label, inOff, binary(uint8(c)|abi.ClassJMP32, dst, src, 0))
}

func to(label string, f field, it Item) Item {
	it.target, it.field = label, f
	return it
}

// Goto and GotoL jump to the label, with 16 and 32 bits of distance.
func Goto(label string) Item  { return to(label, inOff, one(abi.OpJa, 0, 0, 0, 0)) }
func GotoL(label string) Item { return to(label, inImm, one(abi.OpGotol, 0, 0, 0, 0)) }

// MayGoto jumps to the label once the program has run for too long.
func MayGoto(label string) Item { return to(label, inOff, one(abi.OpMayGoto, 0, 0, 0, 0)) }

// Call calls a helper, CallFunc the function at a label, CallX the helper
// whose number a register holds, CallKfunc a function of the kernel by its
// BTF type.
func Call(helper int32) Item     { return one(abi.OpCall, 0, abi.CallHelper, 0, helper) }
func CallFunc(label string) Item { return to(label, inImm, one(abi.OpCall, 0, abi.CallLocal, 0, 0)) }
func CallX(r Reg) Item           { return one(abi.OpCallx, r, 0, 0, 0) }
func CallKfunc(id int32) Item    { return one(abi.OpCall, 0, abi.CallKfunc, 0, id) }

// Exit ends the function; R0 is its result.
func Exit() Item { return one(abi.OpExit, 0, 0, 0, 0) }
