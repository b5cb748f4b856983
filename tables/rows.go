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
	// Step is the first step that a draft has; it has no bytes if there is
	// none. It is also Steps[First].
	Step
	// A slot has the form of the row if slot&Mask == Value and no bit of
	// Refuse is in its class. The slot is a little-endian word.
	Mask, Value uint64
	Refuse      uint32
	Pair        uint16 // 256 times the index into Pairs of the first step
	Mark        uint8  // 0 if the row is Plain or None, else 1
	Kind        Kind
	First       uint16 // index into Steps
	Count       uint8
	Short       uint8 // opcode of a jump with 8 bits of distance
	Size        uint8 // bytes of all steps
	More        uint8 // steps that a draft has behind the first
	Last        uint8 // bytes of the last x86 instruction
	_           [17]byte
}

// RowSize is the size of a Row in bytes.
const RowSize = 64

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
	// Call: E8 cd, if package jit has nothing to add.
	Call
	// Gotol: as Ja, but the distance in slots is in imm.
	Gotol
	// Charge: the steps, then 0F 82 cd to code behind the function.
	Charge
	// Special: steps with parameters.
	Special
	// Compiler: no steps; package jit knows.
	Compiler
	// Noted: as Plain, but package jit wants to know where: constants that
	// stand for addresses, and accesses to an arena.
	Noted
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

// A Finder finds the row of an instruction: it takes those bits of a key that
// rows depend on, and moves them together, as the processor's PEXT does.
//
//	63                         23 22          0
//	+-----------------------------+-----------+
//	| slot, from its bit 40 down  |   class   |
//	+-----------------------------+-----------+
//
//	row = RowIndex[Bases[op] + PEXT(key, Masks[op])]
//
// The slot counts as a little-endian word of 64 bits. Where the class has more
// bits than ClassBits they fall on the opcode, which no mask takes. A slot that
// is no instruction finds some row, too, but fails its Mask or Refuse.
type Finder struct {
	Masks [256]uint64
	Bases [256]uint32
}

// ClassBits is the number of bits of a class that a key has.
const ClassBits = 23

// The class of an instruction: one bit a property that conditions may ask
// for. The bits of registers come from RegClass.
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

	// Behind ClassBits: what is told of an instruction, but finds no row.
	ClassUsesR6 // R6 is in one of the fields of registers
	ClassUsesR7
	ClassUsesR8
	ClassUsesR9

	ClassBad   = 1 << 0 // dst or src is above AX: no register
	ClassNever = 1 << 1 // no instruction has it
)

// PrivateFrame is a register number that stands for x86's r9, which replaces
// R10 in functions with a private stack. RegClass knows it, but has it as bad.
const PrivateFrame = 12
