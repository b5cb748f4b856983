package testprog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/google/go-cmp/cmp"
)

func passes(t *testing.T, p []bpf.Insn) ([]int, error) {
	t.Helper()
	code, err := jit.Compile(&bpf.Program{Insns: p}, &jit.Linux618, new(jit.Function))
	if err != nil {
		return nil, err
	}
	return code.Funcs[0].Passes, nil
}

// TestLadder has the lengths that the golden file tells.
func TestLadder(t *testing.T) {
	for h, want := range map[int]int{4: 5, 14: 15, 15: 16, 16: 17, 17: 17, 33: 17, 100: 17} {
		got, err := passes(t, Ladder(h))
		if err != nil || len(got) != want {
			t.Errorf("h = %d: %d passes, want %d (%v)", h, len(got), want, err)
		}
	}
	got, _ := passes(t, Ladder(16))
	want := []int{255, 178, 148, 146, 144, 142, 140, 138, 136, 134, 132, 130, 128, 126, 124, 124, 124}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("h = 16 (-want +got):\n%s", d)
	}
}

// TestUnsettled: no compiler may take these.
func TestUnsettled(t *testing.T) {
	for name, p := range map[string][]bpf.Insn{"restless": Restless(), "shifting": Shifting()} {
		if err := bpf.Check(&bpf.Program{Insns: p}, bpf.Source); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := passes(t, p); !errors.Is(err, jit.ErrConvergence) {
			t.Errorf("%s: lengths %v, error %v, want %v", name, got, err, jit.ErrConvergence)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// TestLadderGolden compares the ladders with those of the golden file.
func TestLadderGolden(t *testing.T) {
	found := 0
	for _, r := range Golden(t) {
		var h int
		if _, err := fmt.Sscanf(r.Desc, "jump ladder h=%d ", &h); err != nil {
			continue
		}
		found++
		want := slices.Clone(r.Insns)
		want[0].Imm = 7 // the helper's number, where the dump has its address
		if d := cmp.Diff([]bpf.Insn(want), Ladder(h)); d != "" {
			t.Errorf("h = %d (-want +got):\n%s", h, d)
		}
		if got, err := passes(t, Ladder(h)); err != nil || !slices.Equal(got, r.ProgLens) {
			t.Errorf("h = %d: lengths %v, want %v (%v)", h, got, r.ProgLens, err)
		}
	}
	if found != 7 {
		t.Errorf("%d ladders in the golden file, want 7", found)
	}
}
