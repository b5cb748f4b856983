//go:build !race

package blind

import (
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// With the race detector a sync.Pool drops much of what it is given.

// TestAllocations: a Result that is used again needs nothing new. The scratch
// memory is in a sync.Pool, which the collector empties, so one allocation is let
// through; a program's own would be three more.
func TestAllocations(t *testing.T) {
	p := &bpf.Program{Insns: slices.Repeat(testprog.Parse(t, "r1 += 5\nr2 = r1\nif r1 > 3 goto +0").Insns, 1000)}
	var r Result
	rewrite := func() {
		if err := r.Rewrite(p, nil); err != nil {
			t.Error(err)
		}
	}
	rewrite()
	insns, flags, index := &r.Program.Insns[0], &r.Program.Flags[0], &r.Index[0]
	if n := testprog.Allocations(20, rewrite); n > 1 {
		t.Errorf("%v allocations a run", n)
	}
	if insns != &r.Program.Insns[0] || flags != &r.Program.Flags[0] || index != &r.Index[0] {
		t.Error("the result is in other memory")
	}
}
