package tables

//go:generate go run -C=../gen ./rows -out ../tables/zrows.go -vectors ../encoder/testdata/vectors.txt -docs ../docs/opcodes.md

// Profile names a set of rows: which code each form becomes.
type Profile uint8

// The profiles. The ones without BMI2 shift through rcx.
const (
	Kernel Profile = iota // Linux 6.18
	KernelNoBMI2
	V513 // Linux 5.13
	Cage
	CageNoBMI2
	NumProfiles
)

// A Row is the code of a form under one condition, up to MaxSteps steps. What
// decides on REX bytes and on the width of a displacement is part of the
// condition, so the length of a row is fixed.
type Row struct {
	// Step is the first step that Emit writes; it has no bytes if there is
	// none. It is also Steps[First].
	Step
	// Adds is what a row adds to the counts before an instruction: in the
	// lower half the bytes that Emit writes, in the upper half Marks.
	Adds  uint64
	First uint16 // index into Steps
	Count uint8
	Kind  Kind
	Short uint8 // opcode of a jump with 8 bits of distance
	Size  uint8 // bytes of all steps
	More  uint8 // steps that Emit writes behind the first
	Last  uint8 // bytes of the last x86 instruction
}

// Marks returns 0 if the row is Plain or None, else 1.
func (r *Row) Marks() uint32 { return uint32(r.Adds >> 32) }

// Kind says who writes the bytes of a row.
type Kind uint8

const (
	// None: the profile has no code for the form.
	None Kind = iota
	// Plain: the steps, nothing else.
	Plain
	// Jcc: the steps, then a conditional jump: Short cb, or 0F Short+10 cd.
	Jcc
	// Ja: a jump: EB cb, or E9 cd, or nothing.
	Ja
	// Charge: the steps, then 0F 82 cd to code behind the function.
	Charge
	// Special: steps with parameters.
	Special
	// Compiler: no steps; package jit knows.
	Compiler
)

// MaxSteps is the largest Row.Count.
const MaxSteps = 16

// A Step is an x86 instruction without its operands, or several that fit one
// store; only the last of them has a displacement or an immediate then.
//
//	head                                  tail
//	+--------+-----+--------+-------+-----+--------------+-----------+
//	| prefix | REX | opcode | ModRM | SIB | displacement | immediate |
//	+--------+-----+--------+-------+-----+--------------+-----------+
//	0  at most 8 bytes, a constant XOR    Disp           Imm         Len
//	   Bits of dst and src                0, 1 or 4      0, 1, 2, 4 or 8
type Step struct {
	Head     uint64 // little-endian
	Dst, Src uint16 // index into Bits of a register's contributions
	Disp     uint8  // where the displacement, which is Off, would begin
	Imm      uint8  // where the immediate would begin
	Len      uint8  // bytes of all
	Arg      Arg    // what the immediate is
}

// Arg is the value of a step's immediate.
type Arg uint8

const (
	ArgImm      Arg = iota // the instruction's constant; 64 bits of ld.imm64
	ArgOff                 // the instruction's offset
	ArgVsyscall            // lowest address of the vsyscall page
	ArgLimit               // range of addresses that a probe may touch
	ArgPercpu              // offset of this_cpu_off
	ArgUser                // upper half of the arena's user address
	NumArgs
)

// A Finder finds the row of an instruction: it brings those bits of a key
// together that rows depend on.
//
//	63                         23 22          0
//	+-----------------------------+-----------+
//	| slot, from its bit 40 down  |   class   |
//	+-----------------------------+-----------+
//
//	row = RowIndex[Base + Last & upper half of (key&Mask)*Mul]
//
// The slot counts as a little-endian word of 64 bits. Mul has a bit for each
// one of Mask, found by trial.
type Finder struct {
	Mask, Mul, Last, Base uint64
}

// ClassBits is the number of bits of a class.
const ClassBits = 23

// The class of an instruction: one bit a property that conditions may ask
// for. The bits of registers come from RegClass. The lowest three are free,
// because Mul could move them but little.
const (
	ClassDstR3 = 1 << (iota + 3)
	ClassSrcR3
	ClassDstR4
	ClassSrcR4
	ClassSrcByte  // src as a byte needs REX: spl, bpl, sil, dil
	ClassImm8     // imm fits 8 bits, sign-extended
	ClassImmNeg   // imm < 0
	ClassImmZero  // imm = 0
	ClassImmOne   // imm = 1
	ClassHighZero // the imm of the next slot is 0
	ClassHighOnes // the imm of the next slot is -1
	ClassOff8     // off fits 8 bits, sign-extended
	ClassOffZero  // off = 0
	ClassDstR0
	ClassSrcR0
	ClassDstSrc // dst = src
	ClassDstR10
	ClassSrcR10
	ClassDst8 // dst is one of r8 to r15
	ClassSrc8 // src is one of r8 to r15
)

// PrivateFrame is a register number that stands for x86's r9, which replaces
// R10 in functions with a private stack.
const PrivateFrame = 12
