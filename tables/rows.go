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

// A Row is the code of a form under one condition, up to MaxSteps x86
// instructions.
type Row struct {
	First uint16 // index into Steps
	Count uint8
	Kind  Kind
	// Short is the opcode of a jump with 8 bits of distance.
	Short uint8
	_     [3]uint8
}

// Kind says who writes the bytes of a row.
type Kind uint8

const (
	// None: the profile has no code for the form.
	None Kind = iota
	// Plain: the steps, each with a fixed place for every field.
	Plain
	// Jcc: the steps, then a conditional jump: Short cb, or 0F Short+10 cd.
	Jcc
	// Ja: a jump: EB cb, or E9 cd, or nothing.
	Ja
	// Charge: the steps, then 0F 82 cd to code behind the function.
	Charge
	// Special: steps with parameters, or with jumps whose distance depends
	// on the registers.
	Special
	// Compiler: no steps; package jit knows.
	Compiler
)

// MaxSteps is the largest Row.Count.
const MaxSteps = 16

// A Step is one x86 instruction without its operands. Everything comes in two
// variants: without and with a REX byte.
//
//	head                                  tail
//	+--------+-----+--------+-------+-----+--------------+-----------+
//	| prefix | REX | opcode | ModRM | SIB | displacement | immediate |
//	+--------+-----+--------+-------+-----+--------------+-----------+
//	 at most 8 bytes, a constant           0, 1 or 4      0, 1, 2, 4, 8
//	 XOR Bits of dst and src
type Step struct {
	Head [2]uint64 // little-endian; ModRM for 8 bits of displacement
	Len  [2]uint8  // bytes of Head
	Dst  [2]uint8  // row of Bits for the destination register
	Src  [2]uint8  // row of Bits for the source register
	Mod  [2]uint8  // XOR 0xC0<<Mod makes the displacement 32 bits wide
	Rex  uint8     // REX is needed if any of these class bits (RexShift) is set
	Disp uint8     // 1: the displacement is Off, in 1 or 4 bytes
	Imm  uint8     // bytes of immediate
	Arg  Arg       // what the immediate is
	// Label is the step of this row that a Special step jumps to, or NoLabel.
	Label uint8
	_     [3]uint8
}

// NoLabel marks a step that is no jump inside its row.
const NoLabel = 0xff

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

// A Window finds the row of a form: RowIndex[Base + class>>Shift&Mask].
type Window struct {
	Base        uint16
	Shift, Mask uint8
}

// The class of an instruction: one bit a property that conditions may ask
// for. The bits of registers come from RegClass.
const (
	ClassS32     = 1 << iota // ld.imm64: fits 32 bits, sign-extended
	ClassU32                 // ld.imm64: fits 32 bits, zero-extended
	ClassImmNeg              // imm < 0
	ClassImmZero             // imm = 0
	ClassImm8                // imm fits 8 bits, sign-extended
	ClassDstR0
	ClassDstR3
	ClassSrcR0
	ClassSrcR3
	ClassDstSrc // dst = src
	ClassSrcR4
	ClassDstR4
	ClassDstR10
	ClassSrcR10
	ClassImmOne  // imm = 1
	ClassOffZero // off = 0

	// RexShift is where the bits for Step.Rex begin: dst is r8 to r15, src
	// is, src as a byte needs REX (spl, bpl, sil, dil).
	RexShift = 16
)

// PrivateFrame is a register number that stands for x86's r9, which replaces
// R10 in functions with a private stack.
const PrivateFrame = 12
