package abi

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAppendSlots compares slots that are copied whole with slots read field by
// field, at every alignment.
func TestAppendSlots(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	code := make([]byte, 8*InsnSize)
	for i := range code {
		code[i] = byte(r.Uint32())
	}
	for from := range InsnSize {
		for to := from; to <= len(code); to++ {
			b := code[from:to]
			first := Insn{Op: OpExit}
			got := AppendSlots([]Insn{first}, b)
			if len(got) != 1+len(b)/InsnSize || got[0] != first {
				t.Fatalf("%d bytes are %d slots: %v", len(b), len(got)-1, got)
			}
			if view, ok := ViewSlots(b); ok && !slices.Equal(view, got[1:]) {
				t.Errorf("viewed from %d: %v, want %v", from, view, got[1:])
			} else if !ok && littleEndian && from%4 == 0 {
				t.Errorf("no view from %d", from)
			}
			for i, in := range got[1:] {
				if want := slot(b[i*InsnSize:]); in != want {
					t.Errorf("slot %d from %d: %v, want %v", i, from, in, want)
				}
			}
		}
	}
}
