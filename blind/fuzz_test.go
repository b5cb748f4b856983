package blind

import (
	"errors"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// FuzzRewrite rewrites whatever bpf.Check accepts, in either dialect, and
// takes the constants out again.
//
// The result has the old program in it: with the hidden constants put back
// and the distances measured in the old slots, it is the old program. The
// only errors are jumps that became too long.
func FuzzRewrite(f *testing.F) {
	for _, text := range []string{
		"r1 += 5\nexit",
		"w1 = 0\nr1 = 0\nr2 = 0x1122334455667788 ll\nif w1 s> -3 goto -5\nexit",
		"call pc+1\nexit\n*(u32 *)(r10 - 4) = 7\nr3 = func pc-3\ngotol -4",
		"r11 = 5\nr1 s/= 7\nr11 += 1\nr1 &= r11\nexit",
	} {
		insns, err := bpf.Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bpf.Encode(insns), uint32(7))
	}
	f.Fuzz(func(t *testing.T, code []byte, number uint32) {
		insns, err := bpf.Decode(code)
		if err != nil {
			t.Skip()
		}
		p := &bpf.Program{Insns: insns}
		if bpf.Check(p, bpf.Source) != nil && bpf.Check(p, bpf.Translated) != nil {
			t.Skip()
		}
		var r Result
		err = r.Rewrite(p, &words{next: func() uint32 { number = number*0x01000193 + 1; return number }})
		if err != nil {
			if !errors.Is(err, bpf.ErrRange) {
				t.Fatal(err)
			}
			return
		}
		if back := restore(t, p, &r); !slices.Equal(p.Insns, back) {
			t.Errorf("rewritten and restored: %v\nwas %v", back, p.Insns)
		}
	})
}

// restore puts the constants back.
func restore(t *testing.T, p *bpf.Program, r *Result) (insns []bpf.Insn) {
	old := map[int32]int{} // slots by their place in the new program
	for slot, at := range r.Index {
		old[at] = slot
	}
	for slot, was := range p.Insns {
		group := r.Program.Insns[r.Index[slot]:r.Index[slot+1]]
		in := group[len(group)-1]
		if d, ok := bpf.Distance(in); ok {
			to, ok := old[r.Index[slot+1]+d]
			outside := false // a function that isn't here: the number stays
			if e, ok := bpf.Distance(was); ok {
				// What leads to the end leads to the end again.
				outside = slot+1+int(e) < 0 || slot+1+int(e) > len(p.Insns)
			}
			switch {
			case outside && in != was:
				t.Fatalf("slot %d (%s) leads outside, and became %s", slot, p.Text(slot), bpf.Text(in))
			case outside:
				to = slot + 1 + int(d)
			case !ok:
				t.Fatalf("slot %d (%s) leads between the slots: %s", slot, p.Text(slot), bpf.Text(in))
			}
			if in.Op == abi.OpCall || in.Op == abi.OpGotol || in.Op == abi.OpLdImm64 {
				in.Imm = int32(to - slot - 1)
			} else {
				in.Off = int16(to - slot - 1)
			}
		}
		switch zero := in.Op == 0xaf && in.Dst() == in.Src() && (was.Op == 0xb7 || was.Op == 0xb4); {
		case len(group) > 1:
			imm, want := group[0].Imm^group[1].Imm, was.Imm
			switch was.Op {
			case abi.OpLdImm64: // the upper half, which is in the second slot
				want = p.Insns[slot+1].Imm
			case 0:
				want = p.Insns[slot-1].Imm
			}
			if imm != want {
				t.Fatalf("slot %d: hides %#x, want %#x", slot, imm, want)
			}
			in.Op, in.Regs, in.Imm = was.Op, was.Regs, was.Imm
		case zero && was.Imm == 0:
			in = was
		}
		insns = append(insns, in)
	}
	return insns
}

// FuzzMalformed rewrites whatever bpf.Check refuses as a translated program. It
// must be refused, or be refused by Check when it has been rewritten.
func FuzzMalformed(f *testing.F) {
	for _, text := range []string{
		"r1 += 5\nif r1 == 7 goto +2\nr2 = 0x1122334455667788 ll\nexit",
		"*(u32 *)(r10 - 4) = 7\nw1 = 0\ngotol +1\nr3 = 5\ngoto -3",
	} {
		insns, err := bpf.Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		code := bpf.Encode(insns)
		for i := range 8 * len(code) { // any bit may be wrong
			bad := slices.Clone(code)
			bad[i/8] ^= 1 << (i % 8)
			f.Add(bad)
		}
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		insns, err := bpf.Decode(code)
		p := &bpf.Program{Insns: insns}
		if err != nil || bpf.Check(p, bpf.Translated) == nil {
			return
		}
		np, err := Rewrite(p, nil)
		if err != nil {
			return
		}
		if bpf.Check(np, bpf.Translated) == nil {
			t.Errorf("%v\nis refused, but not what became of it:\n%v", p.Insns, np.Insns)
		}
	})
}

// TestMalformedLists: lists of other lengths than they should have are refused.
func TestMalformedLists(t *testing.T) {
	insns := []bpf.Insn{{Op: 0x07, Imm: 5}, {Op: 0x95}}
	for name, p := range map[string]*bpf.Program{
		"no flags":       {Insns: insns, Flags: []bpf.Flag{}},
		"few flags":      {Insns: insns, Flags: make([]bpf.Flag, 1, 9)},
		"many flags":     {Insns: insns, Flags: make([]bpf.Flag, 3)},
		"index too far":  {Insns: insns, Index: []int32{0, 9, 2}},
		"index ends far": {Insns: insns, Index: []int32{0, 3}},
		"index negative": {Insns: insns, Index: []int32{-1, 2}},
	} {
		var e *bpf.Error
		if _, err := Rewrite(p, nil); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
