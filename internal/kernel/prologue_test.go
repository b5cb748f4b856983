package kernel

import (
	"testing"

	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/google/go-cmp/cmp"
)

// TestParsePrologue reads the prologues of the golden file.
func TestParsePrologue(t *testing.T) {
	for _, r := range testprog.Golden(t) {
		got, err := ParsePrologue(r.Jited, r.Insns, r.Params.Subprog)
		if err != nil {
			t.Errorf("%s: %v", r.Desc, err)
			continue
		}
		p := r.Params
		want := Params{
			StackDepth:        (p.StackDepth + 7) / 8 * 8,
			Subprog:           p.Subprog,
			TailCallReachable: p.TailCallReachable,
			ExceptionBoundary: p.ExceptionBoundary,
			ExceptionCallback: p.ExceptionCallback,
			Arena:             p.ArenaKernel.Set,
			ArenaBase:         p.ArenaKernel.Value,
			PrivateStack:      p.PrivateFrame.Set,
			PrivateFrame:      p.PrivateFrame.Value,
			Length:            got.Length,
		}
		if want.PrivateStack { // the prologue doesn't tell
			want.StackDepth = 0
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", r.Desc, d)
		}
	}
}

func TestParsePrologueErrors(t *testing.T) {
	good := []byte{0x0f, 0x1f, 0x44, 0, 0, 0x0f, 0x1f, 0, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 8, 0, 0, 0}
	if p, err := ParsePrologue(good, nil, false); err != nil || p.StackDepth != 8 || p.Length != len(good) {
		t.Errorf("got %+v, %v", p, err)
	}
	for n := range good {
		if n == 12 { // a whole prologue without a stack
			continue
		}
		p, err := ParsePrologue(good[:n], nil, false)
		// Parts of "sub rsp" are code of the function.
		if err == nil && (n < 12 || n >= 15) {
			t.Errorf("%d bytes: %+v", n, p)
		}
	}
	if _, err := ParsePrologue(good, usesR6(), false); err == nil {
		t.Error("a prologue that doesn't save R6")
	}
}

// usesR6 uses R6, which the prologue has to save.
func usesR6() testprog.Slots { return testprog.MustAssemble(testprog.Mov64(testprog.R6, 1)) }
