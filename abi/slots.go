package abi

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// littleEndian tells whether an Insn lies in memory as on the wire.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// AppendSlots appends the slots that code holds, InsnSize bytes each,
// little-endian. Bytes behind the last whole slot are left out.
func AppendSlots(insns []Insn, code []byte) []Insn {
	n := len(code) / InsnSize
	at := len(insns)
	insns = slices.Grow(insns, n)[:at+n]
	if littleEndian {
		to := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(insns[at:]))), n*InsnSize)
		copy(to, code)
		return insns
	}
	for i := range insns[at:] {
		insns[at+i] = slot(code[i*InsnSize:])
	}
	return insns
}

// ViewSlots returns the slots that code holds, in code's own memory, if they can be
// read where they are: on a little-endian machine, from an address that slots have.
func ViewSlots(code []byte) (insns []Insn, ok bool) {
	at := unsafe.Pointer(unsafe.SliceData(code))
	if !littleEndian || uintptr(at)%unsafe.Alignof(Insn{}) != 0 {
		return nil, false
	}
	return unsafe.Slice((*Insn)(at), len(code)/InsnSize), true
}

// slot reads a slot field by field.
func slot(b []byte) Insn {
	return Insn{
		Op: b[0], Regs: b[1],
		Off: int16(binary.LittleEndian.Uint16(b[2:])), Imm: int32(binary.LittleEndian.Uint32(b[4:])),
	}
}
