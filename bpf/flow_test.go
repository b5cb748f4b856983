package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
)

func TestFunctions(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []bpf.Func
	}{
		{"", nil},
		{"exit", []bpf.Func{{End: 1}}},
		// Two calls of one function, and one that only its address knows.
		{`0: call pc+5 <6>
		  1: r2 = func pc+6 <8>
		  3: call 7
		  4: call pc+1 <6>
		  5: exit
		  6: r0 = 1
		  7: exit
		  8: call pc-3 <6>
		  9: exit`, []bpf.Func{
			{0, 6, []bpf.Call{{0, 1}, {4, 1}}, []bpf.Call{{1, 2}}},
			{6, 8, nil, nil},
			{8, 10, []bpf.Call{{8, 1}}, nil},
		}},
	} {
		got, err := bpf.Functions(testprog.Parse(t, tt.text))
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, d)
		}
	}
}

// TestDistance says which instructions have one.
func TestDistance(t *testing.T) {
	for text, want := range map[string]int32{
		"goto -3": -3, "gotol +70000": 70000, "if r1 == r2 goto +4": 4, "may_goto +5": 5, "call pc+6": 6, "r1 = func pc-7": -7,
	} {
		if d, ok := bpf.Distance(testprog.Parse(t, text).Insns[0]); d != want || !ok {
			t.Errorf("%s: %d, %v", text, d, ok)
		}
	}
	for _, text := range []string{"exit", "call 6", "call kfunc 6", "callx r1", "r1 = 6 ll", "r1 += 6", "r1 = *(u8 *)(r2 + 6)", "charge 6", "tail_call 6"} {
		if d, ok := bpf.Distance(testprog.Parse(t, text).Insns[0]); ok {
			t.Errorf("%s has distance %d", text, d)
		}
	}
	if _, ok := bpf.Distance(bpf.Insn{Op: abi.OpCall, Regs: 0x10, Off: 3, Imm: 1}); ok {
		t.Error("a call by number has a distance")
	}
}

// TestCharges shows in front of each instruction what is charged there.
func TestCharges(t *testing.T) {
	for _, text := range []string{
		`1| exit`,
		`3| r0 = 1 ll
		  | r0 += 1
		  | exit`,
		// The longer way counts.
		`4| if r1 == 0 goto +1
		  | r0 += 1
		  | r0 += 1
		  | exit`,
		// A loop: what is behind it is charged with it.
		`2| r0 = 0
		  | r1 = 5
		 4| r0 += 1
		  | r1 -= 1
		  | if r1 != 0 goto -3
		  | exit`,
		// The loop starts the program: the one charge is for both.
		`3| r1 -= 1
		  | if r1 != 0 goto -2
		  | exit`,
		`1| goto -1`,
		`1| gotol -1`,
		// Jumping over the head of a loop.
		`3| if r1 == 0 goto +2
		 4| r1 -= 1
		  | if r1 != 0 goto -2
		  | r0 = 1
		  | exit`,
		// Calls count one, functions pay for themselves.
		`3| call pc+2
		  | call pc+3
		  | exit
		 2| r0 = 1
		  | exit
		 1| exit`,
		// A function that only its address knows.
		`3| r1 = func pc+3
		  | call 181
		  | exit
		 2| r0 = 1
		  | exit`,
		// The way back ends where it is charged again.
		`3| may_goto +2
		  | r0 += 1
		  | goto -3
		  | exit`,
	} {
		var source strings.Builder
		var want []int32
		for line := range strings.SplitSeq(text, "\n") {
			head, insn, _ := strings.Cut(strings.TrimSpace(line), "|")
			var n int32
			fmt.Sscan(head, &n)
			want = append(want, n)
			if strings.Contains(insn, "ll") && !strings.Contains(insn, "call") || strings.Contains(insn, "func") {
				want = append(want, 0)
			}
			source.WriteString(insn + "\n")
		}
		p := testprog.Parse(t, source.String())
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, bpf.Charges(p)); d != "" {
			t.Errorf("%s\n(-want +got):\n%s", text, d)
		}
	}
}

// TestChargesRandom compares with a search of all ways, and walks programs at
// random: what is charged is never less than what is executed, and no more
// than what some way would have used.
func TestChargesRandom(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 300 {
		p := randomProgram(r, 1+r.IntN(25))
		charges := bpf.Charges(p)
		for i, n := range charges {
			if want := longest(p, charges, i); n > 0 && n != want {
				t.Fatalf("slot %d: charge %d, want %d in\n%s", i, n, want, listing(p))
			}
		}
		checkPoints(t, p, charges)
		walk(t, r, p, charges)
	}
}

func listing(p *bpf.Program) string {
	var s strings.Builder
	p.List(&s, bpf.ListOptions{Numbers: true})
	return s.String()
}

// successors lists where execution can go on within the function.
func successors(p *bpf.Program, slot int) []int {
	insn := p.Insns[slot]
	f, _ := tables.FormOf(insn.Op, insn.Regs, insn.Off, insn.Imm)
	d, _ := bpf.Distance(insn)
	next := slot + 1
	if insn.Op == abi.OpLdImm64 {
		next++
	}
	switch tables.Forms[f].Flow {
	case tables.FlowExit:
		return nil
	case tables.FlowJump:
		return []int{slot + 1 + int(d)}
	case tables.FlowBranch:
		return []int{next, slot + 1 + int(d)}
	}
	return []int{next}
}

// longest tries all ways from a slot.
func longest(p *bpf.Program, charges []int32, slot int) int32 {
	memo := map[int]int32{}
	var way func(slot int) int32
	way = func(slot int) int32 {
		if n, ok := memo[slot]; ok {
			return n
		}
		var most int32
		for _, s := range successors(p, slot) {
			if charges[s] == 0 {
				most = max(most, way(s))
			}
		}
		memo[slot] = 1 + most
		return 1 + most
	}
	return way(slot)
}

// checkPoints sees to it that charges stand at beginnings of functions and
// targets of backward jumps only.
func checkPoints(t *testing.T, p *bpf.Program, charges []int32) {
	t.Helper()
	want := map[int]bool{}
	funcs, err := bpf.Functions(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range funcs {
		want[f.Start] = true
		for i := f.Start; i < f.End; i++ {
			for _, s := range successors(p, i) {
				if s <= i {
					want[s] = true
				}
			}
			if p.Insns[i].Op == abi.OpLdImm64 {
				i++
			}
		}
	}
	for i, n := range charges {
		if n < 0 || n > 0 != want[i] {
			t.Fatalf("slot %d: charge %d in\n%s", i, n, listing(p))
		}
	}
}

// walk executes a thousand instructions, choosing branches at random.
func walk(t *testing.T, r *rand.Rand, p *bpf.Program, charges []int32) {
	t.Helper()
	paid, done := int64(0), int64(0)
	var stack []int
	slot := 0
	for range 1000 {
		paid += int64(charges[slot])
		if done++; done > paid {
			t.Fatalf("%d executed, %d paid for at slot %d in\n%s", done, paid, slot, listing(p))
		}
		insn := p.Insns[slot]
		next := successors(p, slot)
		switch {
		case next == nil && len(stack) == 0:
			return
		case next == nil:
			slot, stack = stack[len(stack)-1], stack[:len(stack)-1]
			continue
		case insn.Op == abi.OpCall && insn.Src() == abi.CallLocal:
			stack = append(stack, slot+1)
			slot += 1 + int(insn.Imm)
			continue
		}
		slot = next[r.IntN(len(next))]
	}
}
