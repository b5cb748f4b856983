package encoder

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Slack is how many bytes behind the code Join may overwrite, and EndsSlack how
// many elements behind the ends: it copies pieces of a fixed width.
const (
	Slack     = 2*pieceBytes + 8
	EndsSlack = 2 * pieceSlots
)

// How long the piece between two marks is can't be foreseen, and a branch foreseen
// wrongly takes longer than to copy what nearly all pieces have, at once. In the cage one
// in twenty has more, and gets as much again.
const (
	pieceBytes = 128
	pieceSlots = 24
)

// A Draft is the code of a program without that of its marks. A mark is an
// instruction that depends on more than itself: its row isn't Plain. The steps
// of a jump, which compare, are in the draft and the jump isn't; of Special and
// Compiler rows nothing is.
//
//	slots   | mov | add | if == goto | ldx | exit | ...
//	Code    mov add cmp              ldx            the steps
//	Marks               0                  1
//	Ends   0   3   7   11            15    15       behind each slot
//	Ranks  0   0   0   1             1     2        marks up to each slot
//
// The zero value is ready to be written, and a Draft may be written again and
// again: it keeps its memory.
type Draft struct {
	// Ends and Ranks have an element more than there are slots. They count from
	// any number, that of slot 0.
	Ends  []uint32 // bytes of steps before a slot
	Ranks []uint32 // marks before a slot, times MarkSize
	Marks []Mark
	// Class has all class bits that any slot's registers have.
	Class uint32
	// Slots is how many slots are drafted. All of the above is of these.
	Slots int

	insns   []abi.Insn
	profile tables.Profile
	frame   bool
	short   bool // one call of assembly joins it, if there is room
	code    []byte
	//lint:ignore U1000 of the assembly
	all *tablesOfAll
	//lint:ignore U1000 of the assembly
	job writeJob
}

// Before returns how many bytes of steps and how many marks there are before a
// slot; the slot may be the program's end.
func (d *Draft) Before(slot uint32) (bytes, marks uint32) {
	return d.Ends[slot] - d.Ends[0], (d.Ranks[slot] - d.Ranks[0]) / MarkSize
}

// A Mark is where the code of a slot is to be completed.
type Mark struct {
	Slot uint32
	row  uint32 // times tables.RowSize
}

// MarkSize is the size of a Mark in bytes.
const MarkSize = 8

// Row returns the row of the mark's slot.
func (m Mark) Row() *tables.Row { return &tables.Rows[m.row/tables.RowSize] }

// A Gap is what Join puts in the place of a mark.
//
//	63    48 47                     0
//	| length | code, little-endian  |
//
// Where the length is more than 6 bytes, the rest of the code is left for the
// caller to write.
type Gap uint64

// MakeGap makes a gap of a length in bytes, less than 1<<16, with the first 6 bytes
// of code.
func MakeGap(code uint64, length uint32) Gap {
	return Gap(uint64(length)<<gapLen | code&(1<<gapLen-1))
}

// gapLen is where the length stands in a Gap.
const gapLen = 48

// Len returns the length in bytes.
func (g Gap) Len() uint32 { return uint32(g >> gapLen) }

// Longest is the most bytes that the code of a slot can have.
const Longest = 128

// Write makes d the draft of a program. It reports whether every slot is an
// instruction that the profile has code for and that is well-formed by itself:
// reserved fields, registers, and 64-bit constants of two slots. Where jumps
// lead is not looked at. If it reports false, d has no use but to be written
// again.
//
// Registers are R0 to R10 and AX, with frame also tables.PrivateFrame; R10 is
// never written.
func (d *Draft) Write(profile tables.Profile, insns []abi.Insn, frame bool) bool {
	d.Begin(profile, insns, frame)
	return d.Extend(len(insns))
}

// Begin begins to write the draft of a program, of which Extend does a part at a
// time. Between the parts one can go over what there is while the processor's
// caches have it.
func (d *Draft) Begin(profile tables.Profile, insns []abi.Insn, frame bool) {
	n := len(insns) + 1
	if n > min(cap(d.Ends)-EndsSlack, cap(d.Ranks), cap(d.Marks)) {
		d.grow(n)
	}
	d.Ends, d.Ranks, d.Marks = d.Ends[:n], d.Ranks[:n], d.Marks[:0]
	d.Slots, d.Class, d.Ends[0], d.Ranks[0] = 0, 0, 0, 0
	d.insns, d.profile, d.frame, d.short = insns, profile, frame, false
	d.begin()
}

// aside is how many bytes lists that are read lie beside those that are written in step:
// joining reads ends and code a little in front of where it writes others. Long lists
// begin where a page does, and processors take loads for loads of what was just stored
// a multiple of pages away.
const aside = 512

// grow makes room for n elements. What there was is lost.
func (d *Draft) grow(n int) {
	const first = aside / 4
	d.Ends = make([]uint32, first, first+n+n/4+EndsSlack)[first:]
	d.Ranks, d.Marks = slices.Grow(d.Ranks[:0], n), slices.Grow(d.Marks[:0], n)
}

// Extend drafts the next n slots, or what is left if that is less. It reports
// what Write does.
func (d *Draft) Extend(n int) bool {
	stop := d.Slots + min(n, len(d.insns)-d.Slots)
	if d.Slots >= stop {
		return d.Slots == len(d.Ends)-1 || d.Slots == stop && len(d.insns) > 0
	}
	// An Op of 0 is the second half of nothing.
	ok := d.insns[0].Op != 0 && d.extend(stop)
	if !ok || stop == len(d.insns) {
		d.release()
		d.short = d.isShort()
	}
	return ok
}

// Len returns the number of bytes of the draft.
func (d *Draft) Len() int { return int(d.Ends[d.Slots] - d.Ends[0]) }

// Join puts the code together in code, from at on: behind the steps of mark k
// come gaps[k].Len() bytes. ends[i] becomes the offset in code behind slot i, its
// gap included. Join returns where the code ends.
//
// code needs Slack bytes more than that, ends EndsSlack elements more than
// there are slots; Join panics if they are shorter. gaps must have an element
// for each mark, and room for one more.
func (d *Draft) Join(code []byte, at int, gaps []Gap, ends []uint32) int {
	j := Joint{Draft: d, Code: code, At: at, Gaps: gaps, Ends: ends}
	for over := j.Begin(); !over; {
		over = j.Extend()
	}
	return j.At
}

// A Joint joins a draft part by part. Between the parts one can go over what there
// is while the processor's caches have it.
type Joint struct {
	// These are the arguments of Join. Begin and Extend move At on to where the code ends
	// that is joined yet, and may add a gap of nothing behind the last mark.
	Draft *Draft
	Code  []byte
	Gaps  []Gap
	Ends  []uint32
	At    int
	// Marks is how many marks are joined: up to behind their gaps the code is
	// there. Slots behind the last mark count as one more.
	Marks int

	slot int // the next slot whose end is missing
}

// Begin joins the first part, as Extend does. It reports whether nothing is left. j
// must not have begun before.
func (j *Joint) Begin() (over bool) {
	d := j.Draft
	if j.At < 0 || j.At+Slack > len(j.Code) || len(d.Ends)-1+EndsSlack > len(j.Ends) || len(j.Gaps) != len(d.Marks) {
		panicRoom()
	}
	return d.short && j.joinShort() || j.begin()
}

// begin begins where short drafts don't. What stands behind the last mark is joined as if
// there were one more.
func (j *Joint) begin() (over bool) {
	d := j.Draft
	if n, k := len(d.Ends)-1, len(d.Marks); n > 0 && (k == 0 || int(d.Marks[k-1].Slot) != n-1) {
		d.Marks[:k+1][k].Slot = uint32(n - 1)
		j.Gaps = append(j.Gaps, 0)
	}
	return j.Extend()
}

func panicRoom() { panic("BUG: encoder: too little room for the code, or other gaps than marks") }

// JoinPart is how many marks Extend joins at once, at most. Assembly can't be preempted,
// and the collector should not have to wait for more than some microseconds.
const JoinPart = 256

// Extend joins the next JoinPart marks, or what is left if that is less; fewer or none
// where there are few in many slots. It reports whether nothing is left.
func (j *Joint) Extend() bool {
	j.extend(min(j.Marks+JoinPart, len(j.Gaps)))
	return j.Marks == len(j.Gaps)
}

// word returns a slot as the little-endian word that tables describe.
func word(in abi.Insn) uint64 {
	return uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
}

// Class returns the class bits of an instruction; high is the constant of the
// next slot, 0 if there is none.
func Class(in abi.Insn, high int32) uint32 {
	c := tables.RegClass[in.Regs]
	for _, p := range [...]struct {
		holds bool
		bit   uint32
	}{
		{in.Imm == int32(int8(in.Imm)), tables.ClassImm8},
		{in.Imm < 0, tables.ClassImmNeg},
		{in.Imm == 0, tables.ClassImmZero},
		{in.Imm == 1, tables.ClassImmOne},
		{high == 0, tables.ClassHighZero},
		{high == -1, tables.ClassHighOnes},
		{in.Off == int16(int8(in.Off)), tables.ClassOff8},
		{in.Off == 0, tables.ClassOffZero},
	} {
		if p.holds {
			c |= p.bit
		}
	}
	return c
}

// find returns the row of an instruction.
func find(f *tables.Finder, in abi.Insn, class uint32) uint16 {
	key := word(in)<<tables.ClassBits | uint64(class)
	return tables.RowIndex[f.Bases[in.Op]+pext(key, f.Masks[in.Op])]
}

// pext moves the bits of v that are in mask together.
func pext(v, mask uint64) (r uint32) {
	for n := 0; mask != 0; n, mask = n+1, mask&(mask-1) {
		r |= uint32(v>>bits.TrailingZeros64(mask)&1) << n
	}
	return r
}

// frameClass returns what the class of a slot's registers is where
// tables.PrivateFrame is a register.
func frameClass(regs uint8) uint32 {
	c := tables.RegClass[regs]
	if max(regs&15, regs>>4) <= tables.PrivateFrame {
		c &^= tables.ClassBad
	}
	return c
}

// extendGeneric is Extend in Go, up to the slot stop, which is further on.
func (d *Draft) extendGeneric(stop int) bool {
	insns, f := d.insns, &tables.Finders[d.profile]
	d.code, d.Marks = d.code[:d.Len()], d.Marks[:cap(d.Marks)]
	rank := (d.Ranks[d.Slots] - d.Ranks[0]) / MarkSize
	for i := d.Slots; i < stop; i++ {
		in := insns[i]
		var next abi.Insn
		if i+1 < len(insns) {
			next = insns[i+1]
		}
		if (in.Op == abi.OpLdImm64) != (i+1 < len(insns) && next.Op == 0) {
			return false // half of a constant
		}
		class := Class(in, next.Imm)
		id := find(f, in, class)
		row := &tables.Rows[id]
		if d.frame {
			class = class&^tables.ClassBad | frameClass(in.Regs)
		}
		if class&row.Refuse != 0 || word(in)&row.Mask != row.Value {
			return false
		}
		d.Class |= class
		imm := int64(uint32(in.Imm)) | int64(next.Imm)<<32
		for k := range int(row.More) + 1 {
			s := &row.Step
			if k > 0 {
				s = &tables.Steps[int(row.First)+k]
			}
			d.code = appendStep(d.code, s, in, imm)
		}
		d.Marks[rank] = Mark{Slot: uint32(i), row: uint32(id) * tables.RowSize}
		rank += uint32(row.Mark)
		d.Ends[i+1], d.Ranks[i+1] = d.Ends[0]+uint32(len(d.code)), d.Ranks[0]+rank*MarkSize
	}
	d.Slots, d.Marks = stop, d.Marks[:rank]
	return true
}

// extendGeneric is Extend in Go, up to the mark stop.
func (j *Joint) extendGeneric(stop int) {
	d := j.Draft
	for k := j.Marks; k < stop; k++ {
		behind, gap := int(d.Marks[:stop][k].Slot)+1, j.Gaps[k]
		from, to := d.Ends[j.slot]-d.Ends[0], d.Ends[behind]-d.Ends[0]
		shift := uint32(j.At) - from
		if end := j.At + int(to-from); end+Slack > len(j.Code) {
			panicRoom()
		}
		j.At += copy(j.Code[j.At:], d.code[from:to])
		binary.LittleEndian.PutUint64(j.Code[j.At:], uint64(gap))
		j.At += int(gap.Len())
		for ; j.slot < behind; j.slot++ {
			j.Ends[j.slot] = d.Ends[j.slot+1] - d.Ends[0] + shift
		}
		j.Ends[behind-1] += gap.Len()
	}
	if j.At+Slack > len(j.Code) {
		panicRoom()
	}
	j.Marks = stop
}

// appendStep appends a step. Its three parts overlap: what one writes behind its
// field, the next one or the next step overwrites. imm holds more bits than a
// step takes.
//
//	head  hhhhhhhh           8 bytes from 0
//	disp      dddd           4 bytes from s.Disp
//	imm         iiiiiiii     8 bytes from s.Imm
//	      hhhhdd iiii        s.Len bytes stay
func appendStep(code []byte, s *tables.Step, in abi.Insn, imm int64) []byte {
	var buf [32]byte
	head := s.Head ^ tables.Bits[s.Dst+uint16(in.Dst())] ^ tables.Bits[s.Src+uint16(in.Src())]
	binary.LittleEndian.PutUint64(buf[:], head)
	binary.LittleEndian.PutUint32(buf[s.Disp:], uint32(in.Off))
	binary.LittleEndian.PutUint64(buf[s.Imm:], uint64(imm))
	return append(code, buf[:s.Len]...)
}
