package abi

// Insn is one 8-byte slot of a BPF program, laid out as on the wire
// (RFC 9669, section 3) on a little-endian machine:
//
//	 byte 0   byte 1     bytes 2-3   bytes 4-7
//	+--------+----+----+-----------+---------------+
//	|   Op   |src |dst |    Off    |      Imm      |
//	+--------+----+----+-----------+---------------+
//	          7..4 3..0
type Insn struct {
	Op   uint8
	Regs uint8
	Off  int16
	Imm  int32
}

// InsnSize is the size of a slot in bytes.
const InsnSize = 8

// Dst returns the destination register, 0 to 15.
func (i Insn) Dst() uint8 { return i.Regs & 15 }

// Src returns the source register, 0 to 15.
func (i Insn) Src() uint8 { return i.Regs >> 4 }

// Registers packs two register numbers into the Regs field.
func Registers(dst, src uint8) uint8 { return src<<4 | dst&15 }

// BPF registers. AX is internal: it never occurs in a source program.
const (
	R0 = iota
	R1
	R2
	R3
	R4
	R5
	R6
	R7
	R8
	R9
	R10 // frame pointer, read-only
	AX  // scratch of blinding and of inserted instructions
)

// The parts of an opcode (RFC 9669, section 3):
//
//	 7     5 4   3 2     0          7     4  3  2     0
//	+-------+-----+-------+        +-------+---+-------+
//	| mode  |size | class |        |  op   | s | class |
//	+-------+-----+-------+        +-------+---+-------+
//	 loads and stores               arithmetic and jumps
const (
	ClassMask = 0x07
	SizeMask  = 0x18
	ModeMask  = 0xe0
	OpMask    = 0xf0
	SourceX   = 0x08 // the second operand is a register
)

// Instruction classes.
const (
	ClassLD    = 0x00
	ClassLDX   = 0x01
	ClassST    = 0x02
	ClassSTX   = 0x03
	ClassALU   = 0x04
	ClassJMP   = 0x05
	ClassJMP32 = 0x06
	ClassALU64 = 0x07
)

// Access sizes.
const (
	SizeW  = 0x00 // 4 bytes
	SizeH  = 0x08 // 2 bytes
	SizeB  = 0x10 // 1 byte
	SizeDW = 0x18 // 8 bytes
)

// Opcodes that the code refers to by name. The full list is gen/bpf.txt.
const (
	OpLdImm64  = 0x18 // two slots; Src selects the kind of constant
	OpJa       = 0x05
	OpGotol    = 0x06 // ja with a 32-bit distance in Imm
	OpCall     = 0x85 // Src: CallHelper, CallLocal, CallKfunc
	OpCallx    = 0x8d // helper number in the destination register
	OpExit     = 0x95
	OpMayGoto  = 0xe5
	OpTailCall = 0xf5 // translated programs only
	OpCharge   = 0xf6 // internal: take Imm from the budget
	OpNospec   = 0xc2 // translated programs only
	OpLea      = 0xe7 // internal: Dst = Src + Off
	OpLea32    = 0xe4 // internal: the same in 32 bits
	OpSum      = 0xf7 // internal: Dst = Src + Imm + register Off-1, if Off isn't 0
	OpSum32    = 0xf4 // internal: the same in 32 bits
)

// Kinds of call, in the source field of OpCall.
const (
	CallHelper = 0 // Imm is a helper number
	CallLocal  = 1 // Imm is the distance to a function of this program
	CallKfunc  = 2 // Imm is a BTF id, or a resolved address
)

// Kinds of 64-bit constant, in the source field of OpLdImm64.
const (
	Imm64Value         = 0 // a plain constant
	Imm64MapFD         = 1
	Imm64MapValue      = 2
	Imm64BtfID         = 3
	Imm64Func          = 4 // Imm is the distance to a function of this program
	Imm64MapIndex      = 5
	Imm64MapIndexValue = 6
)

// AccessSize returns the number of bytes that a load or store opcode moves.
func AccessSize(op uint8) int {
	switch op & SizeMask {
	case SizeB:
		return 1
	case SizeH:
		return 2
	case SizeW:
		return 4
	}
	return 8
}
