package testprog

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/interp"
	"github.com/bpfjit/bpfjit/tables"
)

// TestVerified: programs are within their limits, valid, and the same each
// time; together they have every form. That the verifier accepts them is
// tested where a kernel is.
func TestVerified(t *testing.T) {
	seed := Seed(t)
	var c Coverage
	longest := 0
	for i := range uint64(400) {
		p := Verified(seed, i, Limits{})
		if n := len(p.Insns); n < minVerified || n > maxVerified {
			t.Errorf("%s has %d slots", p.Name, n)
		}
		longest = max(longest, len(p.Insns))
		if err := bpf.Check(&bpf.Program{Insns: p.Insns}, bpf.Source); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		again := Verified(seed, i, Limits{})
		if !slices.Equal(again.Insns, p.Insns) || !bytes.Equal(again.Packet, p.Packet) {
			t.Errorf("%s: made twice, and different", p.Name)
		}
		c.Add(p.Insns)
	}
	if longest < maxVerified/2 {
		t.Errorf("the longest program has %d slots", longest)
	}
	if missing := c.Missing(VerifiedForms()); len(missing) > 0 {
		t.Errorf("forms that no program had: %v", missing)
	}
}

// TestVerifiedLimits: what a Limits excludes does not occur.
func TestVerifiedLimits(t *testing.T) {
	seed := Seed(t)
	l := Limits{Without: Helpers | Calls | Atomics | MayGotos | Loops, MaxSize: 300, Kinds: []Kind{XDP}}
	for i := range uint64(200) {
		p := Verified(seed, i, l)
		if p.Kind != XDP || len(p.Insns) > 300 {
			t.Errorf("%s: kind %d, %d slots", p.Name, p.Kind, len(p.Insns))
		}
		for s, in := range p.Insns {
			f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
			info := &tables.Forms[f]
			branch := info.Flow == tables.FlowBranch || info.Flow == tables.FlowJump
			if info.Flow == tables.FlowCall || in.Op == abi.OpMayGoto || isAtomic(in.Op) ||
				branch && (in.Off < 0 || info.Imm.Use == tables.UseDistance && in.Imm < 0) {
				t.Errorf("%s: slot %d: %s", p.Name, s, bpf.Text(in))
			}
		}
	}
}

// TestWild: every wild program is valid, and the same each time; together they
// have every form of the dialect.
func TestWild(t *testing.T) {
	seed := Seed(t)
	var c Coverage
	const n = 5000
	wild := 0
	for i := range uint64(n) {
		p := Wild(seed, i, Limits{})
		if err := bpf.Check(&bpf.Program{Insns: p.Insns}, bpf.Source); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		again := Wild(seed, i, Limits{})
		if !slices.Equal(again.Insns, p.Insns) || !bytes.Equal(again.Packet, p.Packet) {
			t.Errorf("%s: made twice, and different", p.Name)
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

// TestWildEnds: how wild programs end. Well-behaved ones return; of all, at
// least 40 % do; the median program executes 20 instructions or more.
func TestWildEnds(t *testing.T) {
	seed := Seed(t)
	inst, err := new(cage.Space).NewInstance(cage.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close()
	helper := func(n uint32) abi.HelperFunc {
		switch n {
		case 5, 7, 8:
			return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return uint64(n), nil }
		}
		return nil
	}
	const n, budget = 5000, 1 << 16
	ends := map[abi.Stop]int{}
	untouched := 0
	var executed []int
	for i := range uint64(n) {
		p := Wild(seed, i, Limits{})
		prog, err := interp.Prepare(&bpf.Program{Insns: p.Insns})
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		if err := inst.LoadMem(p.Packet); err != nil {
			t.Fatal(err)
		}
		n := 0
		res := prog.Traced(func(int) { n++ }).Run(inst, &interp.Config{R1: abi.MemBase, R2: uint64(len(p.Packet)), Budget: budget, Helper: helper})
		if p.Folded && res.Stop == abi.StopExit && bytes.Equal(inst.Mem(), p.Packet) {
			untouched++ // a short packet may get back what it held
		}
		inst.Reset(cage.WritesAll)
		ends[res.Stop]++
		executed = append(executed, n)
		if !p.Wild && res.Stop != abi.StopExit {
			t.Errorf("%s should behave, but: %+v", p.Name, res)
		}
	}
	if untouched*100 > n {
		t.Errorf("%d of %d programs leave their memory as it was", untouched, n)
	}
	slices.Sort(executed)
	t.Logf("ends %v; executed instructions: median %d, ninth decile %d", ends, executed[n/2], executed[n*9/10])
	if ends[abi.StopExit]*10 < n*4 {
		t.Errorf("only %d of %d programs end normally", ends[abi.StopExit], n)
	}
	if executed[n/2] < 20 {
		t.Errorf("the median program executes %d instructions", executed[n/2])
	}
	for _, stop := range []abi.Stop{abi.StopFault, abi.StopBudget, abi.StopHelper} {
		if ends[stop] == 0 {
			t.Errorf("no program ends by %v", stop)
		}
	}
}
