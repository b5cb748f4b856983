package tables

import (
	"math/bits"
	"testing"
)

// TestBounds checks what package encoder relies on without looking: every
// index that tables hold stays inside, for any instruction at all.
func TestBounds(t *testing.T) {
	for p := range Finders {
		for op, mask := range Finders[p].Masks {
			window := 1 << bits.OnesCount64(mask)
			if int(Finders[p].Bases[op])+window > len(RowIndex) {
				t.Errorf("profile %d, opcode %02x: window %d+%d of %d", p, op, Finders[p].Bases[op], window, len(RowIndex))
			}
			// Where a class has more than ClassBits, it falls on the opcode.
			if mask>>ClassBits&0xff != 0 {
				t.Errorf("profile %d, opcode %02x: mask %#x", p, op, mask)
			}
		}
	}
	for i, id := range RowIndex {
		if int(id) >= NumRows {
			t.Errorf("RowIndex[%d] is row %d of %d", i, id, NumRows)
		}
	}
	for i := range Steps {
		checkStep(t, "Steps", i, &Steps[i])
	}
	for i := range Rows {
		checkRow(t, i, &Rows[i])
	}
}

func checkRow(t *testing.T, i int, r *Row) {
	checkStep(t, "Rows", i, &r.Step)
	if int(r.First)+int(r.Count) > len(Steps) || r.Count > MaxSteps {
		t.Fatalf("Rows[%d]: steps %d+%d of %d", i, r.First, r.Count, len(Steps))
	}
	size := 0
	for k := range int(r.Count) {
		size += int(Steps[int(r.First)+k].Len)
	}
	if size != int(r.Size) || r.Last > r.Size {
		t.Errorf("Rows[%d]: Size is %d, Last %d, the steps have %d bytes", i, r.Size, r.Last, size)
	}
	mark := uint8(1)
	if r.Kind == Plain || r.Kind == None {
		mark = 0
	}
	more := max(r.Count, 1) - 1
	if r.Kind == Special || r.Kind == Compiler || r.Count == 0 {
		more = 0
		if r.Step != (Step{}) {
			t.Errorf("Rows[%d]: a draft would have a step of kind %d", i, r.Kind)
		}
	} else if r.Step != Steps[r.First] {
		t.Errorf("Rows[%d]: Step isn't Steps[%d]", i, r.First)
	}
	if r.Mark != mark || r.More != more {
		t.Errorf("Rows[%d]: Mark %d, More %d; want %d, %d", i, r.Mark, r.More, mark, more)
	}
	if r.Len > 16 {
		t.Errorf("Rows[%d]: %d bytes of the first step, at most 16 fit one store", i, r.Len)
	}
	if p := Pairs[r.Pair/256]; r.Pair%256 != 0 || p != [2]uint16{r.Dst, r.Src} {
		t.Errorf("Rows[%d]: pair %d is %d", i, r.Pair, p)
	}
	if r.Value&^r.Mask != 0 != (r.Kind == None) {
		t.Errorf("Rows[%d]: mask %#x, value %#x of kind %d", i, r.Mask, r.Value, r.Kind)
	}
}

// checkStep checks that the stores of a step end at most eight bytes behind
// it, and that what follows a step can't leave a part of it uncovered.
func checkStep(t *testing.T, table string, i int, s *Step) {
	if int(s.Dst)+16 > len(Bits) || int(s.Src)+16 > len(Bits) {
		t.Errorf("%s[%d]: bits %d and %d of %d", table, i, s.Dst, s.Src, len(Bits))
	}
	if s.Disp < 8 && s.Head>>(8*s.Disp) != 0 {
		t.Errorf("%s[%d]: the head has more than %d bytes", table, i, s.Disp)
	}
	if s.Disp > 8 || s.Imm < s.Disp || s.Imm-s.Disp > 4 || s.Len < s.Imm || s.Len-s.Imm > 8 {
		t.Errorf("%s[%d]: parts at 0, %d, %d, end %d", table, i, s.Disp, s.Imm, s.Len)
	}
}

// TestClassOfRegisters compares RegClass with what its bits mean.
func TestClassOfRegisters(t *testing.T) {
	high := map[int]bool{5: true, 7: true, 8: true, 9: true, 11: true, 12: true} // r8 to r15
	for regs, got := range RegClass {
		dst, src := regs&15, regs>>4
		var want uint32
		for _, b := range []struct {
			holds bool
			bit   uint32
		}{
			{dst == 0, ClassDstR0}, {dst == 3, ClassDstR3}, {dst == 4, ClassDstR4}, {dst == 10, ClassDstR10},
			{src == 0, ClassSrcR0}, {src == 3, ClassSrcR3}, {src == 4, ClassSrcR4}, {src == 10, ClassSrcR10},
			{dst == src, ClassDstSrc}, {high[dst], ClassDst8}, {high[src], ClassSrc8},
			{src == 1 || src == 2 || src == 10, ClassSrcByte}, // dil, sil, bpl
		} {
			if b.holds && dst <= PrivateFrame && src <= PrivateFrame {
				want |= b.bit
			}
		}
		if max(dst, src) > 11 { // AX is the last one
			want |= ClassBad
		}
		for _, r := range []int{dst, src} {
			if r >= 6 && r <= 9 {
				want |= ClassUsesR6 << (r - 6)
			}
		}
		if got != want {
			t.Errorf("r%d, r%d: %#x, want %#x", dst, src, got, want)
		}
	}
}
