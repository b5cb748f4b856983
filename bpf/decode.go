package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// Decode reads slots of 8 bytes, little-endian (RFC 9669, section 3). Every
// bit pattern is a slot; Check says whether it is an instruction. The error
// is an *Error that names the slot that is cut off.
func Decode(code []byte) ([]Insn, error) {
	return AppendDecode(make([]Insn, 0, len(code)/abi.InsnSize), code)
}

// AppendDecode appends the slots of code to insns, as Decode reads them. It
// allocates nothing if insns has the capacity. With an error it returns nil.
func AppendDecode(insns []Insn, code []byte) ([]Insn, error) {
	n := len(code) / abi.InsnSize
	if rest := len(code) % abi.InsnSize; rest != 0 {
		return nil, &Error{Slot: n, Reason: fmt.Sprintf("the code ends after %d of %d bytes", rest, abi.InsnSize)}
	}
	return abi.AppendSlots(insns, code), nil
}

// View returns what Decode does, in code's own memory, if the slots can be read
// where they are: on a little-endian machine, from an address that slots have. While
// they are in use nothing may change them, which is the caller's to see to.
func View(code []byte) (insns []Insn, ok bool) {
	if len(code)%abi.InsnSize != 0 {
		return nil, false
	}
	return abi.ViewSlots(code)
}

// Encode is the reverse of Decode.
func Encode(insns []Insn) []byte {
	code := make([]byte, 0, len(insns)*abi.InsnSize)
	for _, i := range insns {
		code = AppendInsn(code, i)
	}
	return code
}

// AppendInsn appends the 8 bytes of a slot to b.
func AppendInsn(b []byte, i Insn) []byte {
	b = append(b, i.Op, i.Regs)
	b = binary.LittleEndian.AppendUint16(b, uint16(i.Off))
	return binary.LittleEndian.AppendUint32(b, uint32(i.Imm))
}
