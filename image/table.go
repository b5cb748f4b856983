package image

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// Entry is one row of an exception table: where an instruction may fault, and
// how to go on behind it. Rows stand in the order of their Offset.
type Entry struct {
	// Offset is that of the instruction, in bytes from the code's start.
	Offset uint32
	// Fixup says how to go on:
	//
	//	 31     30..24  23..16          15..8          7..0
	//	+-------+------+---------------+--------------+--------------------+
	//	| arena |      | arena address | register to  | length of the      |
	//	|       |      | register      | clear        | instruction, bytes |
	//	+-------+------+---------------+--------------+--------------------+
	//
	// A register is its offset in struct pt_regs; 1 is none.
	Fixup uint32
	// Data is the kind of handler, and the instruction's offset for
	// accesses to an arena.
	Data uint32
}

// EntrySize is the size of an encoded entry in bytes.
const EntrySize = 12

const (
	noRegister  = 1
	handlerKind = 7 // EX_TYPE_BPF
)

// ptRegs is the offset of each general register, by its x86 number, in struct
// pt_regs (ptrace(2), asm/ptrace.h). RSP has a place there, but no
// instruction that may fault writes it.
var ptRegs = [16]uint8{
	0: 80, 1: 88, 2: 96, 3: 40, 4: 152, 5: 32, 6: 104, 7: 112,
	8: 72, 9: 64, 10: 56, 11: 48, 12: 24, 13: 16, 14: 8, 15: 0,
}

// NewEntry returns the row for an instruction of length bytes at offset that
// loads the register with the x86 number clear, or none if that is negative.
func NewEntry(offset, length, clear int) Entry {
	reg := uint32(noRegister)
	if clear >= 0 {
		reg = uint32(ptRegs[clear])
	}
	return Entry{Offset: uint32(offset), Fixup: reg<<8 | uint32(length), Data: handlerKind}
}

// Len returns the length of the instruction in bytes.
func (e Entry) Len() int { return int(e.Fixup & 0xff) }

// Clear returns the x86 number of the register that is to become zero.
func (e Entry) Clear() (register int, ok bool) {
	for i, off := range ptRegs {
		if off == uint8(e.Fixup>>8) {
			return i, true
		}
	}
	return 0, false
}

// TableOffset returns where the table of n bytes of code begins, from the
// start of the code.
func TableOffset(n int) int { return roundUp(n, codeAlign) }

// AppendTable appends the encoded table of code of codeLen bytes to b. The
// encoding, three little-endian words a row, begins with the distance from
// the row to its instruction, so that it holds wherever code and table lie.
func AppendTable(b []byte, codeLen int, entries []Entry) []byte {
	at := TableOffset(codeLen)
	for i, e := range entries {
		b = binary.LittleEndian.AppendUint32(b, e.Offset-uint32(at+i*EntrySize))
		b = binary.LittleEndian.AppendUint32(b, e.Fixup)
		b = binary.LittleEndian.AppendUint32(b, e.Data)
	}
	return b
}

// DecodeTable returns the rows of an encoded table of code of codeLen bytes.
func DecodeTable(table []byte, codeLen int) ([]Entry, error) {
	if err := checkTable(table, codeLen); err != nil {
		return nil, err
	}
	entries := make([]Entry, len(table)/EntrySize)
	for i := range entries {
		entries[i] = entryAt(table, codeLen, i)
	}
	return entries, nil
}

func entryAt(table []byte, codeLen, i int) Entry {
	row := table[i*EntrySize : (i+1)*EntrySize]
	word := binary.LittleEndian.Uint32
	return Entry{
		Offset: word(row) + uint32(TableOffset(codeLen)+i*EntrySize),
		Fixup:  word(row[4:]),
		Data:   word(row[8:]),
	}
}

// lookup finds the row of the instruction at offset by binary search.
func lookup(table []byte, codeLen, offset int) (Entry, bool) {
	n := len(table) / EntrySize
	i := sort.Search(n, func(i int) bool { return int(entryAt(table, codeLen, i).Offset) >= offset })
	if i == n {
		return Entry{}, false
	}
	e := entryAt(table, codeLen, i)
	return e, int(e.Offset) == offset
}

// checkTable reports rows that are incomplete, out of order, or lead out of
// the code.
func checkTable(table []byte, codeLen int) error {
	if len(table)%EntrySize != 0 {
		return fmt.Errorf("image: exception table of %d bytes, want a multiple of %d", len(table), EntrySize)
	}
	last := -1
	for i := range len(table) / EntrySize {
		e := entryAt(table, codeLen, i)
		if int(e.Offset) <= last || int(e.Offset)+e.Len() > codeLen || e.Len() == 0 {
			return fmt.Errorf("image: exception table row %d: instruction of %d bytes at %d (row before: %d) in %d bytes of code", i, e.Len(), e.Offset, last, codeLen)
		}
		last = int(e.Offset)
	}
	return nil
}
