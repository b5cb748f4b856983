package jit

import (
	"encoding/hex"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// function is the kernel's description of a row's function.
func function(r *testprog.GoldenRow) *Function {
	p := &r.Params
	return &Function{
		StackDepth: p.StackDepth, Subprogram: p.Subprog, TailCallReachable: p.TailCallReachable,
		ExceptionBoundary: p.ExceptionBoundary, ExceptionCallback: p.ExceptionCallback,
		ArenaKernel: p.ArenaKernel.Value, ArenaUser: p.ArenaUser.Value, PrivateStack: p.PrivateFrame.Value,
	}
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden compares every row of the golden file with what Linux emitted.
func TestGolden(t *testing.T) {
	rows := testprog.Golden(t)
	equal := 0
	for i := range rows {
		if compareGolden(t, &rows[i]) {
			equal++
		}
	}
	t.Logf("golden %d/%d", equal, len(rows))
	if len(rows) != 289 {
		t.Errorf("%d rows, want 289", len(rows))
	}
}

// goldenProfile is that of the kernel that made the rows.
func goldenProfile() *Profile {
	profile := Linux618
	profile.Percpu = -0x7c4f1fd8 // 0x83b0e028
	return &profile
}

func compareGolden(t *testing.T, r *testprog.GoldenRow) bool {
	code, err := Compile(&bpf.Program{Insns: r.Insns}, goldenProfile(), function(r))
	if err != nil {
		t.Errorf("%s: %v", r.Desc, err)
		return false
	}
	if !r.Equal(code.Bytes) {
		t.Errorf("%s:\n got %x\nwant %x\nmask %x", r.Desc, code.Bytes, r.Jited, r.Mask)
		return false
	}
	if passes := code.Funcs[0].Passes; len(passes) != r.Passes || !slices.Equal(passes, r.ProgLens) {
		t.Errorf("%s: passes %v, want %v", r.Desc, passes, r.ProgLens)
		return false
	}
	return true
}
