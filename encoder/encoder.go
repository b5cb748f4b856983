package encoder

import (
	"encoding/binary"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Slack is how many bytes behind the code Emit may overwrite: it stores eight
// bytes at a time.
const Slack = 16

// A Position counts what comes before an instruction: in the lower 32 bits
// the bytes of code, without those of marks; in the upper 32 bits the marks.
type Position uint64

// Bytes returns the bytes of code before the instruction, marks left out.
func (p Position) Bytes() uint32 { return uint32(p) }

// Marks returns the number of marks before the instruction.
func (p Position) Marks() uint32 { return uint32(p >> 32) }

// Measure finds the row of each instruction and its length. It sets
//
//	rows[i]   the row, an index into tables.Rows
//	pos[i+1]  what comes before instruction i+1; pos[0] must be set
//	marks[k]  the instruction of mark number k, counted from 0 here
//
// A mark is an instruction whose row isn't Plain. Its steps count into pos if
// it is a jump or a charge, but not its jump; of Special and Compiler rows
// nothing counts.
//
// rows and marks must have len(insns) elements, pos one more. Measure returns
// the number of marks and len(insns), or the index of an instruction that the
// profile has no code for.
func Measure(profile tables.Profile, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	if len(insns) == 0 {
		return 0, 0
	}
	_, _, _ = rows[len(insns)-1], pos[len(insns)], marks[len(insns)-1]
	return measure(&tables.Windows[profile], insns, rows, pos, marks)
}

// Emit writes the code of all rows that Measure counted, from code[0] on. At
// mark k it leaves room for gaps[k] bytes behind the steps. ends[i] becomes
// the offset behind instruction i, its room included.
//
// code needs Slack bytes more than the result, which Emit returns.
func Emit(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	if len(insns) == 0 {
		return 0
	}
	_, _ = rows[len(insns)-1], ends[len(insns)-1]
	return emit(code, insns, rows, gaps, ends)
}

// word returns a slot as the little-endian word that tables describe.
func word(in abi.Insn) uint64 {
	return uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
}

// Class returns the class bits of an instruction; high is the constant of the
// next slot.
func Class(in abi.Insn, high int32) uint32 {
	c := tables.RegClass[in.Regs]
	if high == -1 && in.Imm < 0 {
		c |= tables.ClassS32
	}
	if high == 0 {
		c |= tables.ClassU32
	}
	if in.Imm < 0 {
		c |= tables.ClassImmNeg
	}
	if in.Imm == 0 {
		c |= tables.ClassImmZero
	}
	if int32(int8(in.Imm)) == in.Imm {
		c |= tables.ClassImm8
	}
	if in.Imm == 1 {
		c |= tables.ClassImmOne
	}
	if in.Off == 0 {
		c |= tables.ClassOffZero
	}
	return c
}

// find returns the row of an instruction.
func find(windows *[tables.NumForms]tables.Window, in abi.Insn, class uint32) uint16 {
	w := word(in)
	s := &tables.Selectors[in.Op]
	key := w>>(s.Shift&63)&uint64(s.Mask) | w>>(s.LowShift&63)&uint64(s.Low)
	win := windows[tables.FormIndex[uint64(s.Base)+key]]
	return tables.RowIndex[uint32(win.Base)+class>>(win.Shift&31)&uint32(win.Mask)]
}

// measureGeneric is Measure in Go.
func measureGeneric(windows *[tables.NumForms]tables.Window, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	p := pos[0]
	for i, in := range insns {
		var high int32
		if i+1 < len(insns) {
			high = insns[i+1].Imm
		}
		class := Class(in, high)
		id := find(windows, in, class)
		row := &tables.Rows[id]
		switch row.Kind {
		case tables.None:
			return n, i
		case tables.Special, tables.Compiler:
		default:
			p += Position(size(row, class, in.Off))
		}
		if row.Kind != tables.Plain {
			marks[n] = uint32(i)
			n++
			p += 1 << 32
		}
		rows[i] = id
		pos[i+1] = p
	}
	return n, len(insns)
}

// size returns the bytes of a row's steps.
func size(row *tables.Row, class uint32, off int16) int {
	n := 0
	for i := range int(row.Count) {
		n += stepSize(&tables.Steps[int(row.First)+i], class, off)
	}
	return n
}

func stepSize(s *tables.Step, class uint32, off int16) int {
	v := variant(s, class)
	n := int(s.Len[v]) + int(s.Imm) + int(s.Disp)
	if int16(int8(off)) != off {
		n += 3 * int(s.Disp)
	}
	return n
}

// variant tells whether a step needs a REX byte: 0 or 1.
func variant(s *tables.Step, class uint32) int {
	if uint32(s.Rex)&(class>>tables.RexShift) != 0 {
		return 1
	}
	return 0
}

// emitGeneric is Emit in Go.
func emitGeneric(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	at, mark := 0, 0
	for i, in := range insns {
		row := &tables.Rows[rows[i]]
		if row.Kind != tables.Special && row.Kind != tables.Compiler {
			imm := int64(in.Imm)
			if i+1 < len(insns) {
				imm = int64(insns[i+1].Imm)<<32 | int64(uint32(in.Imm))
			}
			class := tables.RegClass[in.Regs]
			for k := range int(row.Count) {
				at += put(code[at:], &tables.Steps[int(row.First)+k], class, in, imm)
			}
		}
		if row.Kind != tables.Plain {
			at += int(gaps[mark])
			mark++
		}
		ends[i] = uint32(at)
	}
	return at
}

// put writes a step and returns its length. It stores 16 bytes; what is too
// many, the next step overwrites. imm holds more bits than a step takes.
func put(code []byte, s *tables.Step, class uint32, in abi.Insn, imm int64) int {
	v := variant(s, class)
	head := s.Head[v] ^ tables.Bits[s.Dst[v]][in.Dst()] ^ tables.Bits[s.Src[v]][in.Src()]
	n := int(s.Len[v])
	tail := uint64(imm)
	disp := 0
	if s.Disp != 0 {
		disp = 1
		if int16(int8(in.Off)) != in.Off {
			disp = 4
			head ^= 0xc0 << s.Mod[v]
		}
		tail = tail<<(8*disp) | uint64(int64(in.Off))&(1<<(8*disp)-1)
	}
	binary.LittleEndian.PutUint64(code, head)
	binary.LittleEndian.PutUint64(code[n:], tail)
	return n + disp + int(s.Imm)
}
