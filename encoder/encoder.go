package encoder

import (
	"encoding/binary"
	"math/bits"

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
// rows and marks must have len(insns) elements, pos one more; what is behind
// the last mark is overwritten as well. Measure returns the number of marks
// and len(insns), or the index of an instruction that the profile has no code
// for.
func Measure(profile tables.Profile, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	if len(insns) == 0 {
		return 0, 0
	}
	_, _, _ = rows[len(insns)-1], pos[len(insns)], marks[len(insns)-1]
	return measure(&tables.Finders[profile], insns, rows, pos, marks)
}

// Emit writes the code of all rows that Measure counted, from code[0] on. At
// mark k it leaves room for gaps[k] bytes behind the steps. ends[i] becomes
// the offset behind instruction i, its room included.
//
// code needs Slack bytes more than the result, which Emit returns. Emit
// writes nothing outside of code, and panics where code or gaps are too short.
func Emit(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	if len(insns) == 0 {
		return 0
	}
	_, _ = rows[len(insns)-1], ends[len(insns)-1]
	n := emit(code, insns, rows, gaps, ends)
	switch {
	case n == noRow:
		panic("BUG: encoder: Emit was given rows that are none")
	case n == noGap:
		panic("BUG: encoder: Emit was given fewer gaps than there are marks")
	case n == noRoom || n+Slack > len(code):
		panic("BUG: encoder: Emit was given too short code")
	}
	return n
}

// What emit returns if it can't go on; gen/asm/encoder has the numbers.
const (
	noRoom = -1 - iota
	noRow
	noGap
)

// word returns a slot as the little-endian word that tables describe.
func word(in abi.Insn) uint64 {
	return uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
}

// Class returns the class bits of an instruction; high is the constant of the
// next slot, 0 if there is none.
func Class(in abi.Insn, high int32) uint32 {
	c := tables.RegClass[in.Regs]
	if int32(int8(in.Imm)) == in.Imm {
		c |= tables.ClassImm8
	}
	if in.Imm < 0 {
		c |= tables.ClassImmNeg
	}
	if in.Imm == 0 {
		c |= tables.ClassImmZero
	}
	if in.Imm == 1 {
		c |= tables.ClassImmOne
	}
	if high == 0 {
		c |= tables.ClassHighZero
	}
	if high == -1 {
		c |= tables.ClassHighOnes
	}
	if int16(int8(in.Off)) == in.Off {
		c |= tables.ClassOff8
	}
	if in.Off == 0 {
		c |= tables.ClassOffZero
	}
	return c
}

// find returns the row of an instruction.
func find(finders *[256]tables.Finder, in abi.Insn, class uint32) uint16 {
	f := &finders[in.Op]
	key := word(in)<<tables.ClassBits | uint64(class)
	i, _ := bits.Mul64(key&f.Mask, f.Mul)
	return tables.RowIndex[f.Base+i&f.Last]
}

// measureGeneric is Measure in Go.
func measureGeneric(finders *[256]tables.Finder, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	p := pos[0]
	for i, in := range insns {
		var high int32
		if i+1 < len(insns) {
			high = insns[i+1].Imm
		}
		id := find(finders, in, Class(in, high))
		if id == 0 {
			return n, i
		}
		row := &tables.Rows[id]
		if row.Marks() != 0 {
			marks[n] = uint32(i)
			n++
		}
		p += Position(row.Adds)
		rows[i] = id
		pos[i+1] = p
	}
	return n, len(insns)
}

// emitGeneric is Emit in Go. It returns a number below 0 if code, rows or gaps
// are wrong.
func emitGeneric(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	at, mark := 0, 0
	for i, in := range insns {
		if int(rows[i]) >= tables.NumRows {
			return noRow
		}
		row := &tables.Rows[rows[i]]
		imm := int64(uint32(in.Imm))
		if i+1 < len(insns) {
			imm |= int64(insns[i+1].Imm) << 32
		}
		s := &row.Step
		for k := range int(row.More) + 1 {
			if k > 0 {
				s = &tables.Steps[int(row.First)+k]
			}
			if at+int(s.Len)+Slack > len(code) {
				return noRoom
			}
			put(code[at:], s, in, imm)
			at += int(s.Len)
		}
		if row.Marks() != 0 {
			if mark == len(gaps) {
				return noGap
			}
			at += int(gaps[mark])
			mark++
		}
		ends[i] = uint32(at)
	}
	return at
}

// put writes a step. Its three stores overlap: what one writes behind its
// field, the next one or the next step overwrites. imm holds more bits than a
// step takes.
//
//	head  hhhhhhhh           8 bytes from 0
//	disp      dddd           4 bytes from s.Disp
//	imm         iiiiiiii     8 bytes from s.Imm
//	      hhhhdd iiii        s.Len bytes stay
func put(code []byte, s *tables.Step, in abi.Insn, imm int64) {
	head := s.Head ^ tables.Bits[s.Dst+uint16(in.Dst())] ^ tables.Bits[s.Src+uint16(in.Src())]
	binary.LittleEndian.PutUint64(code, head)
	binary.LittleEndian.PutUint32(code[s.Disp:], uint32(in.Off))
	binary.LittleEndian.PutUint64(code[s.Imm:], uint64(imm))
}
