package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// longProgram makes a program of n slots that Check accepts, of several parts
// and windows, whose jumps lead up to 30,000 slots in both directions. Few are
// far: the way from most slots to an exit is then a long one. With gotol some
// lead anywhere.
func longProgram(r *rand.Rand, n int, gotol bool) *bpf.Program {
	p := &bpf.Program{Insns: make([]bpf.Insn, n)}
	second := make([]bool, n+1)
	for slot := 0; slot < n; slot++ {
		in := bpf.Insn{Op: tables.Forms[tables.FormAlu64AddK].Op, Regs: 1, Imm: 1}
		switch k := r.IntN(1000); {
		case k < 30 && slot+2 < n:
			p.Insns[slot] = bpf.Insn{Op: abi.OpLdImm64, Regs: 1}
			slot++
			second[slot] = true
			in = bpf.Insn{}
		case k < 130:
			in = bpf.Insn{Op: tables.Forms[tables.FormJmpJeqK].Op, Regs: 1}
		case k < 135:
			in = bpf.Insn{Op: tables.Forms[tables.FormJmpJa].Op}
		case k < 137:
			in = bpf.Insn{Op: abi.OpMayGoto}
		case k < 138 && gotol:
			in = bpf.Insn{Op: abi.OpGotol}
		case k < 139:
			in = bpf.Insn{Op: abi.OpExit}
		}
		p.Insns[slot] = in
	}
	p.Insns[n-1] = bpf.Insn{Op: abi.OpExit}
	for slot := range p.Insns {
		in := &p.Insns[slot]
		if _, ok := bpf.Distance(*in); !ok || second[slot] {
			continue
		}
		most := 1 << (1 + r.IntN(8))
		if r.IntN(10) == 0 {
			most = 30_000
		}
		if in.Op == abi.OpGotol {
			most = n
		}
		to := max(0, min(slot+1+r.IntN(2*most)-most, n-1))
		if second[to] {
			to--
		}
		if d := to - slot - 1; in.Op == abi.OpGotol {
			in.Imm = int32(d)
		} else {
			in.Off = int16(d)
		}
	}
	return p
}

// plainCharges works out charges slot by slot.
func plainCharges(p *bpf.Program) []bpf.Charge {
	n := len(p.Insns)
	points := make([]bool, n)
	points[0] = true
	distance := func(slot int) (int, bool) {
		d, ok := bpf.Distance(p.Insns[slot])
		return int(d), ok && p.Insns[slot].Op != 0
	}
	for slot := range p.Insns {
		if d, ok := distance(slot); ok && d < 0 {
			points[slot+1+d] = true
		}
	}
	lengths, charges := make([]int32, n+1), make([]int32, n)
	for slot := n - 1; slot >= 0; slot-- {
		in, next, there := p.Insns[slot], lengths[slot+1], int32(0)
		if d, ok := distance(slot); ok && d >= 0 {
			there = lengths[slot+1+d]
		}
		switch in.Op {
		case 0: // the second half of a constant
			lengths[slot] = next
			continue
		case abi.OpExit, abi.OpGotol, tables.Forms[tables.FormJmpJa].Op:
			next = 0
		}
		lengths[slot] = 1 + max(next, there)
		if points[slot] {
			charges[slot], lengths[slot] = lengths[slot], 0
		}
	}
	var list []bpf.Charge
	for slot, n := range charges {
		if n > 0 {
			list = append(list, bpf.Charge{Slot: int32(slot), N: n})
		}
	}
	return list
}

// sparsePatches puts something in front of some instructions, and replaces
// some.
func sparsePatches(r *rand.Rand, p *bpf.Program) (list []bpf.Patch) {
	for slot, in := range p.Insns {
		if in.Op == 0 || r.IntN(100) != 0 {
			continue
		}
		list = append(list, bpf.Patch{Slot: slot, Own: bpf.Before, Insns: []bpf.Insn{{Op: 0xb7, Imm: int32(slot)}}})
		if in.Op != abi.OpLdImm64 && r.IntN(4) == 0 {
			list = append(list, bpf.Patch{Slot: slot, Own: 1, Insns: []bpf.Insn{{Op: 0xb7}, in}})
		}
	}
	return list
}

// TestLong checks, charges and patches programs that are longer than what
// stages work on at a time, against what is done slot by slot.
func TestLong(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	var np bpf.Patched // used again, for short programs, too
	for i, n := range []int{4095, 4097, 16_385, 24_577, 32_767, 32_833, 36_864, 36_865, 37_000, 40_961, 65_535, 65_536, 65_537, 98_305, 140_000, 200_001, 100} {
		for _, gotol := range []bool{false, true} {
			t.Run(fmt.Sprintf("slots=%d/gotol=%v", n, gotol), func(t *testing.T) {
				p := longProgram(r, n, gotol)
				if err := bpf.Exact(p, bpf.Source); err != nil {
					t.Fatal(err)
				}
				if !bpf.Quick(p, bpf.Source) {
					t.Error("the quick half of Check refuses it")
				}
				if diff := cmp.Diff(plainCharges(p), bpf.AppendCharges(nil, p)); diff != "" {
					t.Errorf("charges (-plain +got):\n%.2000s", diff)
				}
				checkMoved(t, &np, p, sparsePatches(r, p))
				if i%2 == 0 {
					stray(t, r, p)
				}
			})
		}
	}
}

// checkMoved applies patches, the last of which has its own instruction at the
// end, and looks where everything is and leads then.
func checkMoved(t *testing.T, patched *bpf.Patched, p *bpf.Program, patches []bpf.Patch) {
	t.Helper()
	if err := patched.Apply(p, patches); err != nil {
		t.Fatal(err)
	}
	np, index := &patched.Program, patched.Index
	inserted := 0
	for slot, in := range p.Insns {
		for ; len(patches) > 0 && patches[0].Slot == slot; patches = patches[1:] {
			inserted += len(patches[0].Insns)
			if patches[0].Own >= 0 {
				inserted--
			}
		}
		at := int(index[slot+1]) - 1
		moved := np.Insns[at]
		if at != slot+inserted || np.Source(at) != slot || np.Flag(at) != 0 {
			t.Fatalf("slot %d is at %d, with the source %d and flags %v; %d were inserted", slot, at, np.Source(at), np.Flag(at), inserted)
		}
		if d, ok := bpf.Distance(in); ok {
			nd, ok := bpf.Distance(moved)
			if to := index[slot+1+int(d)]; !ok || int32(at)+1+nd != to {
				t.Fatalf("slot %d, at %d: %v leads %d slots on, want to %d", slot, at, moved, nd, to)
			}
			in.Off, in.Imm, moved.Off, moved.Imm = 0, 0, 0, 0
		}
		if in != moved {
			t.Fatalf("slot %d, at %d: is %v, want %v", slot, at, moved, in)
		}
	}
	if len(np.Insns) != len(p.Insns)+inserted {
		t.Errorf("%d slots, want %d", len(np.Insns), len(p.Insns)+inserted)
	}
}

// stray leads jumps into constants and out of the program: both halves of Check
// have to see that.
func stray(t *testing.T, r *rand.Rand, p *bpf.Program) {
	t.Helper()
	var jumps []int
	for slot, in := range p.Insns {
		if in.Op == tables.Forms[tables.FormJmpJeqK].Op {
			jumps = append(jumps, slot)
		}
	}
	for range 10 {
		slot := jumps[r.IntN(len(jumps))]
		in := &p.Insns[slot]
		was := *in
		in.Off = int16(r.Uint32())
		agree(t, p)
		*in = was
	}
}

// TestLongFunctions leads a jump from functions of many lengths to every slot
// of the program, and to the ones around.
func TestLongFunctions(t *testing.T) {
	lengths := []int{64, 3, 61, 128, 1, 2, 63, 70}
	p := &bpf.Program{}
	for _, n := range lengths {
		start := len(p.Insns)
		for range n - 1 {
			p.Insns = append(p.Insns, bpf.Insn{Op: 0xb7})
		}
		p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
		if start > 0 { // called from the first one
			call := bpf.Insn{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal)}
			slot := len(p.Insns) % 60
			for p.Insns[slot].Op == abi.OpCall {
				slot++
			}
			call.Imm = int32(start - slot - 1)
			p.Insns[slot] = call
		}
	}
	if err := bpf.Check(p, bpf.Source); err != nil {
		t.Fatal(err)
	}
	start := 0
	for _, n := range lengths {
		for _, slot := range []int{start, start + n/2, start + n - 2} {
			if slot < start || slot == start+n-1 || p.Insns[slot].Op == abi.OpCall {
				continue
			}
			was := p.Insns[slot]
			for to := -2; to < len(p.Insns)+2; to++ {
				p.Insns[slot] = bpf.Insn{Op: tables.Forms[tables.FormJmpJeqK].Op, Off: int16(to - slot - 1)}
				agree(t, p)
				within := to >= start && to < start+n
				if bpf.Quick(p, bpf.Source) != within {
					t.Fatalf("slot %d to %d: within is %v", slot, to, within)
				}
			}
			p.Insns[slot] = was
		}
		start += n
	}
}

// TestMoveFunctions: functions that are moved are those that would be found.
func TestMoveFunctions(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	var np bpf.Patched
	for range 500 {
		p := randomProgram(r, 1+r.IntN(100))
		if err := np.Apply(p, fewPatches(r, p)); err != nil {
			t.Fatal(err)
		}
		funcs, err := bpf.Functions(p)
		if err != nil {
			t.Fatal(err)
		}
		want, err := bpf.Functions(&np.Program)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, np.MoveFunctions(funcs)); diff != "" {
			t.Fatalf("of\n%s(-found +moved):\n%s", listing(p), diff)
		}
	}
}

// fewPatches puts something in front of some instructions.
func fewPatches(r *rand.Rand, p *bpf.Program) (list []bpf.Patch) {
	often := 1 + r.IntN(100)
	for slot, in := range p.Insns {
		if in.Op != 0 && r.IntN(often) == 0 {
			own := bpf.Before - r.IntN(2)
			list = append(list, bpf.Patch{Slot: slot, Own: own, Insns: slices.Repeat([]bpf.Insn{{Op: 0xb7}}, 1+r.IntN(3))})
		}
	}
	return list
}

// TestLongRuns charges programs with runs of tens of thousands of slots that have
// no mark, into which jumps lead from near and far.
func TestLongRuns(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 10 {
		p := &bpf.Program{}
		for range 2 + r.IntN(4) {
			first := len(p.Insns)
			for range 1 + r.IntN(20) {
				p.Insns = append(p.Insns, bpf.Insn{Op: tables.Forms[tables.FormJmpJeqK].Op, Regs: 1, Off: int16(100 + r.IntN(32_667))})
				if r.IntN(2) == 0 {
					p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
				}
			}
			if r.IntN(2) == 0 {
				p.Insns[first].Off = 0x7fff
			}
			straight := slices.Repeat([]bpf.Insn{{Op: 0xb7, Regs: 1, Off: 0}}, 33_000+r.IntN(100_000))
			p.Insns = append(p.Insns, straight...)
		}
		p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(plainCharges(p), bpf.AppendCharges(nil, p)); diff != "" {
			t.Fatalf("%d slots: charges (-plain +got):\n%.2000s", len(p.Insns), diff)
		}
	}
}
