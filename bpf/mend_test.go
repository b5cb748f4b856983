package bpf_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// layOut makes what a Mender wants: the instructions and the index of a program
// in which slot i became groups[i].
func layOut(groups [][]bpf.Insn) (insns []bpf.Insn, index []int32) {
	index = []int32{0}
	for _, g := range groups {
		insns = append(insns, g...)
		index = append(index, int32(len(insns)))
	}
	return insns, index
}

// mend makes a Mender add jumps to all of a program at once.
func mend(np, p *bpf.Program, index []int32, jumps []uint64) error {
	var m bpf.Mender
	m.Start(p)
	if err := m.Add(np.Insns, index, 0, jumps); err != nil {
		return err
	}
	return m.Finish(np, index)
}

// follow does the same while the program grows.
func follow(np, p *bpf.Program, index []int32, jumps []uint64, r *rand.Rand) error {
	var m bpf.Mender
	m.Start(p)
	for len(jumps) > 0 {
		done, n := (len(p.Insns)+63)/64-len(jumps), 1+r.IntN(len(jumps))
		known := min(64*(done+n)+r.IntN(100), len(p.Insns))
		if err := m.Add(np.Insns[:index[known]], index[:known+1], 64*done, jumps[:n]); err != nil {
			return err
		}
		jumps = jumps[n:]
	}
	return m.Finish(np, index)
}

// every has a bit for each slot.
func every(p *bpf.Program) []uint64 {
	slots := make([]uint64, (len(p.Insns)+63)/64)
	for i := range p.Insns {
		slots[i/64] |= 1 << (i % 64)
	}
	return slots
}

// first has a bit for the first slot of a program.
func first(p *bpf.Program) []uint64 {
	slots := make([]uint64, (len(p.Insns)+63)/64)
	slots[0] = 1
	return slots
}

// TestMendRandom compares with Apply, given the same as patches.
func TestMendRandom(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 150 {
		p := randomProgram(r, 1+r.IntN(300))
		if r.IntN(2) == 0 {
			p.Flags = make([]bpf.Flag, len(p.Insns))
			p.Origin = make([]int32, len(p.Insns))
			for i := range p.Flags {
				p.Flags[i], p.Origin[i] = bpf.Flag(r.IntN(4)), r.Int32N(50)
			}
		}
		var groups [][]bpf.Insn
		var patches []bpf.Patch
		for slot, insn := range p.Insns {
			var group []bpf.Insn
			for range r.IntN(7) * r.IntN(2) {
				group = append(group, bpf.Insn{Op: 0xb7, Regs: uint8(r.IntN(10)), Imm: r.Int32N(100)})
			}
			group = append(group, insn)
			groups = append(groups, group)
			patches = append(patches, bpf.Patch{Slot: slot, Own: len(group) - 1, Insns: group})
		}
		before := clone(p)
		want, wantIndex, err := bpf.Apply(p, patches)
		if err != nil {
			t.Fatal(err)
		}
		insns, index := layOut(groups)
		np := &bpf.Program{Insns: insns, Flags: want.Flags, Origin: want.Origin, Index: want.Index}
		if err := follow(np, p, index, every(p), r); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(index, wantIndex) {
			t.Fatalf("index %v, want %v", index, wantIndex)
		}
		if d := cmp.Diff(want, np, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("of\n%s(-Apply +Mender):\n%s", listing(p), d)
		}
		if d := cmp.Diff(before, p); d != "" {
			t.Fatalf("the program handed in changed:\n%s", d)
		}
	}
}

func TestMendErrors(t *testing.T) {
	const text = "if r1 == 0 goto +1\nr1 += 1\nexit"
	for _, tt := range []struct {
		want  string
		insns string
		index []int32
	}{
		{"program: mend: the index doesn't fit 3 slots that became 3", text, []int32{0, 1, 2}},
		{"program: mend: the index doesn't fit 3 slots that became 3", text, []int32{1, 1, 2, 3}},
		{"program: mend: the index doesn't fit 3 slots that became 3", text, []int32{0, 1, 2, 4}},
		{"slot 0 (if r1 == 0 goto +1): mend: becomes nothing", text, []int32{0, 0, 1, 3}},
		{"slot 0 (if r1 == 0 goto +1): mend: becomes nothing", text, []int32{0, 4, 1, 3}},
		{"slot 0 (if r1 == 0 goto +1): mend: r1 += 1 has no distance any more", "r1 += 1\nr1 += 1\nexit", []int32{0, 1, 2, 3}},
	} {
		np := testprog.Parse(t, tt.insns)
		p := testprog.Parse(t, text)
		err := mend(np, p, tt.index, first(p))
		var e *bpf.Error
		if err == nil || err.Error() != tt.want || !errors.As(err, &e) {
			t.Errorf("index %v: error %v, want %s", tt.index, err, tt.want)
		}
	}
	for _, tt := range []struct {
		want  string
		jumps []uint64
	}{
		{"program: mend: has no slot 3 yet", []uint64{8}},
		{"program: mend: has no slot 64 yet", []uint64{0, 1}},
	} {
		p := testprog.Parse(t, text)
		if err := mend(testprog.Parse(t, text), p, []int32{0, 1, 2, 3}, tt.jumps); err == nil || err.Error() != tt.want {
			t.Errorf("jumps %v: error %v, want %s", tt.jumps, err, tt.want)
		}
	}
}

// TestMendRange pushes distances of each kind to their limit and over it.
func TestMendRange(t *testing.T) {
	const between = 32760
	for _, tt := range []struct {
		jump string // over the slots between, forward
		grow int    // what is added there
		want string
	}{
		{"if r1 == 0 goto +32760", 7, ""},
		{"if r1 == 0 goto +32760", 8, "slot 0 (if r1 == 0 goto +32760): off would be 32768, which 16 bits don't hold"},
		{"may_goto +32760", 8, "slot 0 (may_goto +32760): off would be 32768, which 16 bits don't hold"},
		{"gotol +32760", 1000, ""},
		{"call pc+32760", 1000, ""},
	} {
		mov := testprog.Parse(t, "r2 = 0").Insns
		jump := testprog.Parse(t, tt.jump).Insns
		groups := [][]bpf.Insn{jump}
		for range between {
			groups = append(groups, mov)
		}
		groups[between/2] = slices.Repeat(mov, 1+tt.grow)
		groups = append(groups, testprog.Parse(t, "exit").Insns)
		p := &bpf.Program{Insns: slices.Concat(jump, slices.Repeat(mov, between), testprog.Parse(t, "exit").Insns)}
		insns, index := layOut(groups)
		np := &bpf.Program{Insns: insns}
		err := mend(np, p, index, first(p))
		if tt.want != "" {
			if !errors.Is(err, bpf.ErrRange) || err.Error() != tt.want {
				t.Errorf("%s: error %v, want %s", tt.jump, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.jump, err)
			continue
		}
		if d, _ := bpf.Distance(np.Insns[0]); int(d) != between+tt.grow {
			t.Errorf("%s: leads %d, want %d", tt.jump, d, between+tt.grow)
		}
	}
}

// BenchmarkMend mends a program in which every third slot became three.
func BenchmarkMend(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("insns=%d", n), func(b *testing.B) {
			some := testprog.Parse(b, "r1 += 5\nif r1 == r2 goto +0\nr3 = r4").Insns
			p := &bpf.Program{}
			var groups [][]bpf.Insn
			for i := range n {
				in := some[i%3]
				p.Insns = append(p.Insns, in)
				if i%3 == 0 {
					groups = append(groups, []bpf.Insn{in, in, in})
				} else {
					groups = append(groups, []bpf.Insn{in})
				}
			}
			insns, index := layOut(groups)
			np, slots := &bpf.Program{Insns: insns}, every(p)
			b.ReportAllocs()
			for b.Loop() {
				if err := mend(np, p, index, slots); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/insn")
		})
	}
}

// TestIndex: a program with an Index knows its source slots, and so does what is
// made of it.
func TestIndex(t *testing.T) {
	p := testprog.Parse(t, "r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\nexit")
	p.Index = []int32{0, 1, 4, 5, 6} // of four slots the second became three
	for _, tt := range []struct{ origin, want []int32 }{
		{nil, []int32{0, 1, 1, 1, 2, 3}},
		{[]int32{7, 7, 8, 5}, []int32{7, 7, 7, 7, 8, 5}},
	} {
		p.Origin = tt.origin
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Fatal(err)
		}
		np, _, err := bpf.Apply(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		for slot, want := range tt.want {
			if got := []int{p.Source(slot), p.Flat().Source(slot), np.Source(slot)}; !slices.Equal(got, slices.Repeat([]int{int(want)}, 3)) {
				t.Errorf("slot %d: source %v, want %d", slot, got, want)
			}
		}
	}
}
