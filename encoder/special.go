package encoder

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Args are the values of a row's parameters, by tables.Arg. ArgImm and ArgOff
// come from the instruction.
type Args [tables.NumArgs]int64

// AppendRow appends the steps of any row, Special ones included. imm is the
// constant, 64 bits of it for ld.imm64.
func AppendRow(code []byte, row *tables.Row, in abi.Insn, imm int64, args *Args) []byte {
	for i := range int(row.Count) {
		s := &tables.Steps[int(row.First)+i]
		v := imm
		switch s.Arg {
		case tables.ArgImm:
		case tables.ArgOff:
			v = int64(in.Off)
		default:
			v = args[s.Arg]
		}
		code = appendStep(code, s, in, v)
	}
	return code
}

// Size returns the length of a row's steps for an instruction.
func Size(row *tables.Row, in abi.Insn) int { return int(row.Size) }

// Lengths of jumps in bytes.
const (
	ShortJump = 2
	LongJa    = 5
	LongJcc   = 6
)

// Jump returns the code of a jump as a little-endian word: pad bytes of
// no-operation, which are 0, 2, 3, 4 or 5, and then the jump if it has a length,
// of one of the three above. op is its opcode in the short form, distance is
// counted from its end. What is behind the code in the word has no meaning.
//
//	ShortJump  op cb      LongJa  E9 cd (op^2)      LongJcc  0F op+10 cd
func Jump(op uint8, length, pad uint32, distance int32) uint64 {
	w := uint64(op) | uint64(uint32(distance))<<8
	if length == LongJa {
		w ^= 0xeb ^ 0xe9
	}
	if length == LongJcc {
		w = (w+0x10)<<8 | 0x0f
	}
	if pad != 0 {
		w = nops[pad] | w<<(8*pad)
	}
	return w
}

// nops are the no-operations of each length, in the bytes the kernel uses.
var nops = [6]uint64{0, 0, 0x9066, 0x001f0f, 0x00401f0f, 0x0000441f0f}

// LastStep returns the length of a row's last x86 instruction.
func LastStep(row *tables.Row, in abi.Insn) int { return int(row.Last) }

// RowOf returns the row of an instruction of one slot.
func RowOf(profile tables.Profile, in abi.Insn) *tables.Row {
	return &tables.Rows[find(&tables.Finders[profile], in, Class(in, 0))]
}
