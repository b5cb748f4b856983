package bpf_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// parse1 is Parse for texts that are right.
func parse1(text string) []bpf.Insn {
	insns, err := bpf.Parse(text)
	if err != nil {
		panic(err)
	}
	return insns
}

func TestApply(t *testing.T) {
	var got strings.Builder
	for _, tt := range []struct {
		name, text string
		patches    []bpf.Patch
	}{
		{"nothing", "r0 = 1\ngoto -2", nil},
		{"replaced by one", "r0 = 1\nexit", []bpf.Patch{{Slot: 0, Own: 0, Insns: parse1("r0 = 2")}}},
		{"jumps to a replaced slot, from both sides", "if r1 == 0 goto +1\nr0 = 1\nr0 += 1\ngoto -2\nexit",
			[]bpf.Patch{{Slot: 2, Own: 1, Insns: parse1("r11 = 9\nr0 += r11\nr11 = 0")}}},
		{"a hidden branch forward", "if r1 > 5 goto +1\nr0 = 1\nexit",
			[]bpf.Patch{{Slot: 0, Own: 2, Insns: parse1("r11 = 12\nr11 ^= 9\nif r1 > r11 goto +0")}}},
		{"a hidden branch backward", "r0 = 1\nif r1 > 5 goto -2\nexit",
			[]bpf.Patch{{Slot: 1, Own: 2, Insns: parse1("r11 = 12\nr11 ^= 9\nif r1 > r11 goto +0")}}},
		{"a hidden branch to itself", "if r1 > 5 goto -1\nexit",
			[]bpf.Patch{{Slot: 0, Own: 2, Insns: parse1("r11 = 12\nr11 ^= 9\nif r1 > r11 goto +0")}}},
		{"a guard, with jumps of its own", "r0 = 7\nr0 /= r1\ngoto -2\nexit",
			[]bpf.Patch{{Slot: 1, Own: 3, Insns: parse1("if r1 != 0 goto +2\nw0 ^= w0\ngoto +1\nr0 /= r1")}}},
		{"in front of a loop, and on the way in", "r1 = 3\nr1 -= 1\nif r1 != 0 goto -2\nexit",
			[]bpf.Patch{{Slot: 1, Own: bpf.Enter, Insns: parse1("r2 = 0")}, {Slot: 1, Own: bpf.Before, Insns: parse1("r2 += 1")}}},
		{"a function that starts with a loop", "call pc+2\nr1 = func pc+1\nr1 -= 1\nif r1 != 0 goto -2\nexit",
			[]bpf.Patch{{Slot: 3, Own: bpf.Enter, Insns: parse1("r2 = 0\nr3 = 0")}, {Slot: 3, Own: bpf.Before, Insns: parse1("r2 += 1")},
				{Slot: 3, Own: 1, Insns: parse1("r11 = 1\nr1 -= r11")}}},
		{"a hidden 64-bit constant", "r1 = 0x100000002 ll\ngotol -3",
			[]bpf.Patch{{Slot: 0, Own: 2, Insns: parse1("r11 = 1\nr11 <<= 32\nr1 = r11")}, {Slot: 1, Own: 1, Insns: parse1("w11 = 2\nr1 |= r11")}}},
		{"in front of a 64-bit constant", "goto +0\nr1 = 1 ll\ngoto -3",
			[]bpf.Patch{{Slot: 1, Own: bpf.Before, Insns: parse1("charge 2")}}},
		{"a jump that grows", "r0 = 1\ngoto -2", []bpf.Patch{{Slot: 0, Own: bpf.Before, Insns: parse1("charge 2")}, {Slot: 1, Own: 0, Insns: parse1("gotol +0")}}},
		{"may_goto", "r0 += 1\nmay_goto +1\ngoto -3\nexit", []bpf.Patch{{Slot: 1, Own: 1,
			Insns: parse1("r11 = *(u64 *)(r10 - 520)\nif r11 == 0 goto +0\nr11 -= 1\n*(u64 *)(r10 - 520) = r11")}}},
		{"a call by number stays", "call 5\nr1 = func pc+70\nexit", []bpf.Patch{{Slot: 0, Own: bpf.Before, Insns: parse1("r1 = 0")}}},
	} {
		p := testprog.Parse(t, tt.text)
		if tt.name == "a call by number stays" {
			p.Insns[0] = bpf.Insn{Op: abi.OpCall, Regs: 0x10, Off: 7, Imm: 1}
		}
		before := clone(p)
		np, index, err := bpf.Apply(p, tt.patches)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(before, p); d != "" {
			t.Errorf("%s: the program handed in changed:\n%s", tt.name, d)
		}
		fmt.Fprintf(&got, "%s\n\n", tt.name)
		p.List(&got, bpf.ListOptions{Numbers: true})
		fmt.Fprintf(&got, "\nindex %v\n\n", index)
		np.List(&got, bpf.ListOptions{Numbers: true, Marks: true})
		got.WriteString("\n----\n")
	}
	golden.Compare(t, "testdata/apply.txt", got.String())
}

func clone(p *bpf.Program) *bpf.Program {
	return &bpf.Program{Insns: slices.Clone(p.Insns), Flags: slices.Clone(p.Flags), Origin: slices.Clone(p.Origin)}
}

// TestApplyFlags keeps the marks of own instructions, and origins of a
// program patched before.
func TestApplyFlags(t *testing.T) {
	p := testprog.Parse(t, "r0 = *(u8 *)(r1 + 0)\nr0 += 1\nexit")
	p.Flags = []bpf.Flag{bpf.Probe, bpf.Inserted, 0}
	p.Origin = []int32{0, 0, 1}
	np, _, err := bpf.Apply(p, []bpf.Patch{
		{Slot: 0, Own: bpf.Before, Insns: parse1("r2 = 0")},
		{Slot: 0, Own: 0, Insns: parse1("r0 = *(u8 *)(r1 + 1)\nr0 += 0")},
		{Slot: 1, Own: 1, Insns: parse1("r11 = 1\nr0 += r11")},
		{Slot: 2, Own: bpf.Enter, Insns: parse1("r3 = 0")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]bpf.Flag{bpf.Inserted, bpf.Probe, bpf.Inserted, bpf.Inserted, bpf.Inserted, bpf.Inserted, 0}, np.Flags); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int32{0, 0, 0, 0, 0, 1, 1}, np.Origin); d != "" {
		t.Error(d)
	}
}

func TestApplyErrors(t *testing.T) {
	const text = "if r1 == 0 goto +1\nr1 = 1 ll\nr1 += 1\nexit"
	mov := parse1("r2 = 0")
	for _, tt := range []struct {
		want    string
		patches []bpf.Patch
	}{
		{"program: has no slot 5 to patch", []bpf.Patch{{Slot: 5, Insns: mov}}},
		{"program: has no slot -1 to patch", []bpf.Patch{{Slot: -1, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: own instruction 1 of 1", []bpf.Patch{{Slot: 3, Own: 1, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: own instruction -3 of 1", []bpf.Patch{{Slot: 3, Own: -3, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: own instruction 0 of 0", []bpf.Patch{{Slot: 3}}},
		{"slot 3 (r1 += 1): patch: own instruction 0 of 0", slices.Concat(
			[]bpf.Patch{{Slot: 0, Own: bpf.Before, Insns: slices.Repeat(mov, 20)}}, slices.Repeat([]bpf.Patch{{Slot: 3}}, 30))},
		{"slot 3 (r1 += 1): patch: out of order", []bpf.Patch{{Slot: 4, Insns: mov}, {Slot: 3, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: out of order", []bpf.Patch{{Slot: 3, Insns: mov}, {Slot: 3, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: out of order", []bpf.Patch{{Slot: 3, Insns: mov}, {Slot: 3, Own: bpf.Before, Insns: mov}}},
		{"slot 3 (r1 += 1): patch: out of order", []bpf.Patch{{Slot: 3, Own: bpf.Before, Insns: mov}, {Slot: 3, Own: bpf.Enter, Insns: mov}}},
		{"slot 0 (if r1 == 0 goto +1): patch: r2 = 0 has no distance any more", []bpf.Patch{{Slot: 0, Insns: mov}}},
		{"slot 2 (; second half): patch: goes between the halves of a 64-bit constant", []bpf.Patch{{Slot: 2, Own: bpf.Before, Insns: mov}}},
		{"slot 2 (; second half): patch: replaces one half of a 64-bit constant", []bpf.Patch{{Slot: 2, Insns: mov}}},
		{"slot 1 (r1 = ...00000001 ll): patch: replaces one half of a 64-bit constant", []bpf.Patch{{Slot: 1, Insns: mov}}},
		{"slot 1 (r1 = ...00000001 ll): patch: replaces one half of a 64-bit constant", []bpf.Patch{{Slot: 1, Insns: mov}, {Slot: 3, Insns: mov}}},
	} {
		p := testprog.Parse(t, text)
		p.Insns[2].Imm = 5 // or its text is empty
		_, _, err := bpf.Apply(p, tt.patches)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%+v: error %v, want %s", tt.patches, err, tt.want)
		}
	}
}

// TestApplyRange pushes distances of each kind to their limit and over it.
func TestApplyRange(t *testing.T) {
	mov := parse1("r2 = 0")[0]
	fill := func(n int) []bpf.Insn { return slices.Repeat([]bpf.Insn{mov}, n) }
	exit := parse1("exit")[0]
	for _, tt := range []struct {
		name    string
		jump    string
		before  int // slots between the target and the jump, if it is backward
		between int // slots between the jump and its target
		grow    int // what Apply inserts there
		want    string
	}{
		{"forward, fits", "if r1 == 0 goto +32760", 0, 32760, 7, ""},
		{"forward", "if r1 == 0 goto +32760", 0, 32760, 8, "slot 0 (if r1 == 0 goto +32760): off would be 32768, which 16 bits don't hold"},
		{"backward, fits", "goto -32761", 32760, 0, 7, ""},
		{"backward", "goto -32761", 32760, 0, 8, "slot 32760 (goto -32761): off would be -32769, which 16 bits don't hold"},
		{"may_goto", "may_goto +32767", 0, 32767, 1, "slot 0 (may_goto +32767): off would be 32768, which 16 bits don't hold"},
		{"gotol", "gotol +32767", 0, 32767, 1000, ""},
		{"call", "call pc+32767", 0, 32767, 1000, ""},
		{"address", "r1 = func pc+32767", 0, 32767, 1000, ""},
	} {
		jump := parse1(tt.jump)
		p := &bpf.Program{Insns: slices.Concat(fill(tt.before), jump, fill(tt.between+1-len(jump)), []bpf.Insn{exit, exit})}
		at := tt.before
		if at == 0 {
			at = tt.between - 1
		} else {
			at-- // in front of the jump, behind the target
		}
		np, index, err := bpf.Apply(p, []bpf.Patch{{Slot: at, Own: bpf.Before, Insns: fill(tt.grow)}})
		if tt.want != "" {
			var e *bpf.Error
			if err == nil || err.Error() != tt.want || !errors.Is(err, bpf.ErrRange) || !errors.As(err, &e) || e.Slot != tt.before {
				t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		d, _ := bpf.Distance(jump[0])
		nd, _ := bpf.Distance(np.Insns[index[tt.before]])
		if got, want := int(index[tt.before])+1+int(nd), int(index[tt.before+1+int(d)]); got != want {
			t.Errorf("%s: leads to slot %d, want %d", tt.name, got, want)
		}
	}
}

// randomPatches makes patches of all kinds.
func randomPatches(r *rand.Rand, p *bpf.Program) []bpf.Patch {
	some := func() []bpf.Insn {
		var insns []bpf.Insn
		for range 1 + r.IntN(3) {
			insns = append(insns, bpf.Insn{Op: 0xb7, Regs: uint8(r.IntN(10)), Imm: r.Int32N(100)})
		}
		return insns
	}
	var patches []bpf.Patch
	for slot := range p.Insns {
		second := slot > 0 && p.Insns[slot-1].Op == abi.OpLdImm64
		if !second && r.IntN(8) == 0 {
			patches = append(patches, bpf.Patch{Slot: slot, Own: bpf.Enter, Insns: some()})
		}
		for !second && r.IntN(6) == 0 {
			patches = append(patches, bpf.Patch{Slot: slot, Own: bpf.Before, Insns: some()})
		}
		if !second && p.Insns[slot].Op != abi.OpLdImm64 && r.IntN(4) == 0 {
			insns := some()
			own := r.IntN(len(insns))
			insns[own] = p.Insns[slot]
			patches = append(patches, bpf.Patch{Slot: slot, Own: own, Insns: insns})
		}
	}
	return patches
}

// node is an instruction that knows where it leads, not how far.
type node struct {
	insn   bpf.Insn
	flag   bpf.Flag
	origin int32
	to     int // slot, or -1
}

// oneByOne makes the same changes as Apply, a patch at a time, each time
// moving everything behind it and looking at every instruction.
func oneByOne(p *bpf.Program, patches []bpf.Patch) *bpf.Program {
	nodes := make([]node, len(p.Insns))
	for i, insn := range p.Insns {
		nodes[i] = node{insn, p.Flag(i), int32(p.Source(i)), -1}
		if d, ok := bpf.Distance(insn); ok {
			nodes[i].to = i + 1 + int(d)
		}
	}
	for k := len(patches) - 1; k >= 0; k-- {
		nodes = onePatch(nodes, patches[k])
	}
	np := &bpf.Program{}
	for i, n := range nodes {
		if n.to >= 0 {
			d := n.to - i - 1
			f, _ := tables.FormOf(n.insn.Op, n.insn.Regs, n.insn.Off, n.insn.Imm)
			if tables.Forms[f].Off.Use == tables.UseDistance {
				n.insn.Off = int16(d)
			} else {
				n.insn.Imm = int32(d)
			}
		}
		np.Insns = append(np.Insns, n.insn)
		np.Flags = append(np.Flags, n.flag)
		np.Origin = append(np.Origin, n.origin)
	}
	return np
}

func onePatch(nodes []node, t bpf.Patch) []node {
	old := nodes[t.Slot]
	var more []node
	for i, insn := range t.Insns {
		n := node{insn, bpf.Inserted, old.origin, -1}
		if i == t.Own {
			n.flag, n.to = old.flag, old.to
		}
		more = append(more, n)
	}
	grow, end := len(t.Insns), t.Slot
	if t.Own >= 0 {
		grow, end = grow-1, end+1
	}
	nodes = slices.Concat(nodes[:t.Slot], more, nodes[end:])
	for i := range nodes {
		n := &nodes[i]
		call := n.insn.Op == abi.OpCall || n.insn.Op == abi.OpLdImm64
		if n.to > t.Slot || n.to == t.Slot && t.Own == bpf.Enter && !call {
			n.to += grow
		}
	}
	return nodes
}

// TestApplyRandom compares with the same changes made one by one.
func TestApplyRandom(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 500 {
		p := randomProgram(r, 1+r.IntN(40))
		if r.IntN(2) == 0 {
			p.Flags = make([]bpf.Flag, len(p.Insns))
			p.Origin = make([]int32, len(p.Insns))
			for i := range p.Flags {
				p.Flags[i], p.Origin[i] = bpf.Flag(r.IntN(4)), r.Int32N(50)
			}
		}
		patches := randomPatches(r, p)
		np, index, err := bpf.Apply(p, patches)
		if err != nil {
			t.Fatal(err)
		}
		want := oneByOne(p, patches)
		if d := cmp.Diff(want, np.Flat(), cmpopts.EquateEmpty()); d != "" && len(patches) > 0 {
			t.Fatalf("patches %+v of\n%s(-want +got):\n%s", patches, listing(p), d)
		}
		if len(index) != len(p.Insns)+1 || int(index[len(p.Insns)]) != len(np.Insns) || !slices.IsSorted(index) {
			t.Fatalf("index %v for %d slots that became %d", index, len(p.Insns), len(np.Insns))
		}
		same, _, err := bpf.Apply(p, nil)
		if d := cmp.Diff(p, same); d != "" || err != nil {
			t.Fatalf("no patches changed the program: %v\n%s", err, d)
		}
	}
}

// TestApplyKernel hides constants by the rule that the kernel mends branches
// with, written down in other words than Apply's: a patch of n instructions
// at slot p adds n-1 to what leads over p, and a branch in its last place
// keeps off if that is not negative, else off - (n-1).
func TestApplyKernel(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 200 {
		p := randomProgram(r, 1+r.IntN(30))
		var patches []bpf.Patch
		insns := slices.Clone(p.Insns)
		for slot, at := 0, 0; slot < len(p.Insns); slot, at = slot+1, at+1 {
			f, _ := tables.FormOf(p.Insns[slot].Op, p.Insns[slot].Regs, p.Insns[slot].Off, p.Insns[slot].Imm)
			if b := tables.Forms[f].Blind; b != tables.BlindJmp32 && b != tables.BlindJmp64 && b != tables.BlindAlu64 {
				continue
			}
			hidden := p.Insns[slot]
			hidden.Op |= abi.SourceX
			hidden.Regs |= abi.AX << 4
			hidden.Imm = 0
			patch := append(parse1("r11 = 1\nr11 ^= 2"), hidden)
			patches = append(patches, bpf.Patch{Slot: slot, Own: 2, Insns: patch})

			// The kernel's way, in place.
			own := insns[at]
			own.Op, own.Regs, own.Imm = hidden.Op, hidden.Regs, 0
			if _, ok := bpf.Distance(own); ok && own.Off < 0 {
				own.Off -= 2
			}
			insns = slices.Concat(insns[:at], patch[:2], []bpf.Insn{own}, insns[at+1:])
			for k := range insns {
				q, ok := bpf.Distance(insns[k])
				if !ok || at <= k && k < at+3 {
					continue
				}
				old := int(q)
				switch {
				case k < at && k+old+1 >= at+1:
					old += 2
				case k >= at+3 && k+old+1 < at+3:
					old -= 2
				}
				if op := insns[k].Op; op == abi.OpCall || op == abi.OpLdImm64 || op == abi.OpGotol {
					insns[k].Imm = int32(old)
				} else {
					insns[k].Off = int16(old)
				}
			}
			at += 2
		}
		np, _, err := bpf.Apply(p, patches)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(insns, np.Insns); d != "" {
			t.Fatalf("%s(-kernel +got):\n%s", listing(p), d)
		}
	}
}

func surveyOf(p *bpf.Program) *bpf.Survey {
	s := new(bpf.Survey)
	s.Take(p)
	return s
}

// TestApplyCharged: charges are patches in front of others, behind those on the way
// into a slot, and refused as such.
func TestApplyCharged(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for i := range 500 {
		p := randomProgram(r, 1+r.IntN(300))
		patches := randomPatches(r, p)
		if i%2 == 0 {
			patches = fewPatches(r, p)
		}
		if i%3 == 0 { // charges alone, often one
			p = randomProgram(r, 1+r.IntN(40))
			patches = nil
		}
		if i%5 == 0 && len(patches) > 0 { // something wrong
			patches[r.IntN(len(patches))].Slot += r.IntN(5) - 2
		}
		if i%7 == 0 { // leads into a constant, perhaps
			p.Insns[r.IntN(len(p.Insns))] = bpf.Insn{Op: abi.OpLdImm64}
		}
		var all []bpf.Patch
		rest := patches
		for _, c := range bpf.AppendCharges(nil, p) {
			for len(rest) > 0 && (rest[0].Slot < int(c.Slot) || rest[0].Slot == int(c.Slot) && rest[0].Own == bpf.Enter) {
				all, rest = append(all, rest[0]), rest[1:]
			}
			all = append(all, bpf.Patch{Slot: int(c.Slot), Own: bpf.Before, Insns: []bpf.Insn{{Op: abi.OpCharge, Imm: c.N}}})
		}
		want, index, wantErr := bpf.Apply(p, append(all, rest...))
		var got bpf.Patched
		err := got.ApplyCharged(surveyOf(p), patches)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("program %d: error %v, want %v", i, err, wantErr)
		}
		if err != nil {
			continue
		}
		if diff := cmp.Diff(want, &got.Program) + cmp.Diff(index, got.Index); diff != "" {
			t.Fatalf("program %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestApplySizes: a program whose lists don't fit its slots is refused.
func TestApplySizes(t *testing.T) {
	insns := []bpf.Insn{{Op: 0xb7}, {Op: abi.OpExit}}
	for _, p := range []*bpf.Program{
		{Insns: insns, Flags: make([]bpf.Flag, 1)},
		{Insns: insns, Origin: make([]int32, 3)},
		{Insns: insns, Index: []int32{0}},
		{Insns: insns, Index: []int32{0, 1, 3}},
	} {
		_, _, err := bpf.Apply(p, []bpf.Patch{{Slot: 1, Own: bpf.Before, Insns: insns[:1]}})
		if e := new(bpf.Error); !errors.As(err, &e) || e.Slot != -1 {
			t.Errorf("%+v: error %v", p, err)
		}
	}
}
