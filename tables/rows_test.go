package tables

import "testing"

// TestBounds checks what package encoder relies on without looking: every
// index that tables hold stays inside, for any instruction at all.
func TestBounds(t *testing.T) {
	for p := range Finders {
		for op := range Finders[p] {
			f := &Finders[p][op]
			if f.Last&(f.Last+1) != 0 || f.Base+f.Last >= uint64(len(RowIndex)) {
				t.Errorf("profile %d, opcode %02x: window %d+%d of %d", p, op, f.Base, f.Last+1, len(RowIndex))
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
	mark := uint64(1)
	if r.Kind == Plain || r.Kind == None {
		mark = 0
	}
	want, more := mark<<32|uint64(size), max(r.Count, 1)-1
	if r.Kind == Special || r.Kind == Compiler || r.Count == 0 {
		want, more = mark<<32, 0
		if r.Step != (Step{}) {
			t.Errorf("Rows[%d]: Emit would write a step of kind %d", i, r.Kind)
		}
	} else if r.Step != Steps[r.First] {
		t.Errorf("Rows[%d]: Step isn't Steps[%d]", i, r.First)
	}
	if r.Adds != want || r.More != more {
		t.Errorf("Rows[%d]: Adds %#x, More %d; want %#x, %d", i, r.Adds, r.More, want, more)
	}
}

// checkStep checks that the stores of a step end at most eight bytes behind
// it, and that what follows a step can't leave a part of it uncovered.
func checkStep(t *testing.T, table string, i int, s *Step) {
	if int(s.Dst)+16 > len(Bits) || int(s.Src)+16 > len(Bits) {
		t.Errorf("%s[%d]: bits %d and %d of %d", table, i, s.Dst, s.Src, len(Bits))
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
		if got != want {
			t.Errorf("r%d, r%d: %#x, want %#x", dst, src, got, want)
		}
	}
}
