package tables

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// byOp lists the forms of each opcode.
var byOp = func() (l [256][]Form) {
	for f := Form(1); f < NumForms; f++ {
		l[Forms[f].Op] = append(l[Forms[f].Op], f)
	}
	return l
}()

// naive finds the form of an instruction by looking at every one.
func naive(op, regs uint8, off int16, imm int32) Form {
	for _, f := range byOp[op] {
		i := &Forms[f]
		if holds(i.Dst, int32(regs&15)) && holds(i.Src, int32(regs>>4)) &&
			holds(i.Off, int32(off)) && holds(i.Imm, imm) {
			return f
		}
	}
	return FormNone
}

func holds(o Operand, v int32) bool { return !o.Fixed() || o.Value == v }

func TestFormOf(t *testing.T) {
	found := map[Form]bool{}
	check := func(op, regs uint8, off int16, imm int32) {
		want := naive(op, regs, off, imm)
		got, ok := FormOf(op, regs, off, imm)
		if got != want || ok != (want != FormNone) {
			t.Fatalf("FormOf(%#02x, %#02x, %d, %#x) = %v, %v, want %v", op, regs, off, imm, got, ok, want)
		}
		found[got] = true
	}
	// Every number that selects a form, its neighbours, and a few more.
	offs := []int16{-32768, -2, -1, 0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 32767}
	imms := []int32{-1 << 31, -1, 0, 1, 2, 15, 16, 17, 32, 64, 0x3f, 0x40, 0x41, 0x50, 0x51, 0xa0, 0xa1,
		0xe0, 0xe1, 0xf0, 0xf1, 0x100, 0x101, 0x110, 0x111, 0x10000, 0x10001, 1<<31 - 1}
	for op := range 256 {
		for _, regs := range []uint8{0, 0x01, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x12, 0xba, 0xf0, 0x0f} {
			for _, off := range offs {
				for _, imm := range imms {
					check(uint8(op), regs, off, imm)
				}
			}
		}
	}
	for f := Form(1); f < NumForms; f++ {
		if !found[f] {
			t.Errorf("%v was never found", f)
		}
	}
	// Every value of off and of the low half of imm, for each opcode.
	if !testing.Short() {
		for op := range 256 {
			for v := range 1 << 16 {
				check(uint8(op), 0x21, int16(v), 0)
				check(uint8(op), 0x21, 0, int32(v))
			}
		}
	}
}

func TestFormValues(t *testing.T) {
	seen := map[string]bool{}
	for f := Form(1); f < NumForms; f++ {
		i := &Forms[f]
		if i.Name == "" || i.Text == "" || seen[i.Name] {
			t.Errorf("form %d: name %q, text %q", f, i.Name, i.Text)
		}
		seen[i.Name] = true
		if m := Matches[f]; uint8(m.Value) != i.Op || m.Value&^m.Mask != 0 {
			t.Errorf("%v: match %#x/%#x of opcode %#02x", f, m.Value, m.Mask, i.Op)
		}
	}
	for _, f := range []Form{FormNone, NumForms, 0xffff} {
		if f.String() != "no form" {
			t.Errorf("Form(%d) = %q", f, f)
		}
	}
}

func BenchmarkFormOf(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var slots [1024][8]byte
	for i := range slots {
		f := &Forms[1+r.IntN(NumForms-1)]
		binary.LittleEndian.PutUint64(slots[i][:], Matches[1+r.IntN(NumForms-1)].Value)
		slots[i][0] = f.Op
	}
	n := 0
	for i := 0; b.Loop(); i++ {
		s := &slots[i&1023]
		f, _ := FormOf(s[0], s[1], int16(binary.LittleEndian.Uint16(s[2:])), int32(binary.LittleEndian.Uint32(s[4:])))
		n += int(f)
	}
	_ = n
}
