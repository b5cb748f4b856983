package blind

import (
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/google/go-cmp/cmp"
)

// TestGolden takes the kernel's random numbers out of what it blinded, and
// with them comes to the same instructions and the same code.
func TestGolden(t *testing.T) {
	rows := 0
	for _, r := range testprog.Golden(t) {
		if r.Params.Blinded {
			rows++
			t.Run(r.Desc, func(t *testing.T) { compareGolden(t, &r) })
		}
	}
	if rows != 12 {
		t.Errorf("%d blinded rows, want 12", rows)
	}
}

func compareGolden(t *testing.T, r *testprog.GoldenRow) {
	got, err := Rewrite(&bpf.Program{Insns: r.Xlated}, list(drawn(r.Insns)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Insns, got.Insns) {
		t.Fatalf("(-kernel +got):\n%s", cmp.Diff([]bpf.Insn(r.Insns), got.Insns))
	}
	code, err := jit.Compile(got, &jit.Linux618, &jit.Function{StackDepth: r.Params.StackDepth})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal(code.Bytes) {
		t.Errorf("code\n got %x\nwant %x\nmask %x", code.Bytes, r.Jited, r.Mask)
	}
}
