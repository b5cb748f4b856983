package encoder

import (
	"encoding/binary"

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
		var buf [2 * Slack]byte
		put(buf[:], s, in, v)
		code = append(code, buf[:s.Len]...)
	}
	return code
}

// Size returns the length of a row's steps for an instruction.
func Size(row *tables.Row, in abi.Insn) int { return int(row.Size) }

// JumpSize is the room for a jump: short, or long.
func JumpSize(kind tables.Kind, short bool) uint32 {
	switch {
	case short:
		return 2
	case kind == tables.Ja:
		return 5
	}
	return 6
}

// PutJump writes a jump of a row at code: its distance is counted from the
// end of the jump. The length is JumpSize.
func PutJump(code []byte, row *tables.Row, distance int32, short bool) {
	switch {
	case short:
		code[0], code[1] = row.Short, byte(distance)
	case row.Kind == tables.Ja:
		code[0] = 0xe9
		binary.LittleEndian.PutUint32(code[1:], uint32(distance))
	case row.Kind == tables.Charge:
		code[0], code[1] = 0x0f, 0x82
		binary.LittleEndian.PutUint32(code[2:], uint32(distance))
	default:
		code[0], code[1] = 0x0f, row.Short+0x10
		binary.LittleEndian.PutUint32(code[2:], uint32(distance))
	}
}

// nops are the no-operations of each length, in the bytes the kernel uses.
var nops = [6][]byte{nil, nil, {0x66, 0x90}, {0x0f, 0x1f, 0x00}, {0x0f, 0x1f, 0x40, 0x00}, {0x0f, 0x1f, 0x44, 0x00, 0x00}}

// PutNop fills code[:n] with one no-operation; n is 0, 2, 3, 4 or 5.
func PutNop(code []byte, n int) { copy(code[:n], nops[n]) }

// LastStep returns the length of a row's last x86 instruction.
func LastStep(row *tables.Row, in abi.Insn) int { return int(row.Last) }

// RowOf returns the row of an instruction of one slot.
func RowOf(profile tables.Profile, in abi.Insn) *tables.Row {
	return &tables.Rows[find(&tables.Finders[profile], in, Class(in, 0))]
}
