package testprog

import (
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
)

// TestWildChecks: every wild program is a valid Source program, and together
// they have every form that the dialect allows.
func TestWildChecks(t *testing.T) {
	seed := Seed(t)
	var c Coverage
	n := 5000
	wild := 0
	for i := range uint64(n) {
		p := Wild(seed, i, Limits{})
		if err := bpf.Check(&bpf.Program{Insns: p.Insns}, bpf.Source); err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if again := Wild(seed, i, Limits{}); !slices.Equal(again.Insns, p.Insns) || !slices.Equal(again.Packet, p.Packet) {
			t.Fatalf("%s: made twice, and different", p.Name)
		}
		c.Add(p.Insns)
		if p.Wild {
			wild++
		}
	}
	t.Logf("%d of %d programs are wild\n%s", wild, n, c.Table(SourceForms()))
	if missing := c.Missing(SourceForms()); len(missing) > 0 {
		t.Errorf("forms that no program had: %v", missing)
	}
}
