package blind

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"golang.org/x/arch/x86/x86asm"
)

// repeat makes a program of n times the same instructions.
func repeat(t *testing.T, n int, text string) []bpf.Insn {
	return slices.Repeat(testprog.Parse(t, text).Insns, n)
}

// TestCVE2026_98816 pushes backward jumps to the lower end of their 16 bits.
// Where a constant is hidden the jump itself stands two slots later: -32766
// becomes -32768, which fits; -32767 and -32768 don't, and must not wrap round
// to jumps forward.
func TestCVE2026_98816(t *testing.T) {
	for _, tt := range []struct {
		jump string
		off  int
		now  int // what it becomes; 0: it doesn't fit
		was  int // what it would be
	}{
		{"if r1 == 7 goto", -32765, -32767, 0},
		{"if r1 == 7 goto", -32766, -32768, 0},
		{"if r1 == 7 goto", -32767, 0, -32769},
		{"if r1 == 7 goto", -32768, 0, -32770},
		{"if w1 s> 7 goto", -32766, -32768, 0},
		{"if w1 s> 7 goto", -32767, 0, -32769},
		{"if w1 s> 7 goto", -32768, 0, -32770},
		{"if r1 == r2 goto", -32768, -32768, 0}, // nothing to hide
		{"goto", -32768, -32768, 0},
		{"gotol", -32768, -32768, 0},
	} {
		text := fmt.Sprintf("%s %+d", tt.jump, tt.off)
		slot := -tt.off - 1
		p := &bpf.Program{Insns: slices.Concat(repeat(t, slot, "r3 = r4"), testprog.Parse(t, text).Insns, testprog.Parse(t, "exit").Insns)}
		if err := bpf.Check(p, bpf.Translated); err != nil {
			t.Fatal(err)
		}
		before := clone(p)
		var r Result
		err := r.Rewrite(p, nil)
		if !same(before, p) {
			t.Errorf("%s: the program changed", text)
		}
		if tt.now == 0 {
			wantRange(t, err, slot, fmt.Sprintf("slot %d (%s): off would be %d, which 16 bits don't hold", slot, text, tt.was))
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d, _ := bpf.Distance(r.Program.Insns[r.Index[slot+1]-1]); int(d) != tt.now {
			t.Errorf("%s: leads %d now, want %d", text, d, tt.now)
		}
	}
}

// wantRange checks an error about a jump that has become too long.
func wantRange(t *testing.T, err error, slot int, text string) {
	t.Helper()
	var e *bpf.Error
	if !errors.Is(err, bpf.ErrRange) || !errors.As(err, &e) || e.Slot != slot || e.Error() != text {
		t.Errorf("error %v\nwant  %s", err, text)
	}
}

// TestCVE2018_25020 lets long jumps lead over instructions that grow. Each of
// them is right to the slot or refused, and so is the machine code.
func TestCVE2018_25020(t *testing.T) {
	for _, tt := range []struct {
		jump   string
		grow   int    // constants in its way, each of which adds two slots
		stay   int    // and what doesn't grow
		behind bool   // the way lies behind the jump
		error  string // what it would be
	}{
		{"goto", 10922, 1, true, ""}, // 3*10922 + 1 = 32767
		{"goto", 10922, 2, true, "off would be 32768, which 16 bits don't hold"},
		{"goto", 32767, 0, true, "off would be 98301, which 16 bits don't hold"},
		{"if r1 != r2 goto", 10922, 1, true, ""},
		{"if r1 != r2 goto", 10922, 2, true, "off would be 32768, which 16 bits don't hold"},
		{"if r1 != 5 goto", 10922, 1, true, ""},
		{"if w1 & 5 goto", 10922, 2, true, "off would be 32768, which 16 bits don't hold"},
		{"gotol", 30000, 0, true, ""},
		{"call pc", 30000, 0, true, ""},
		{"goto", 10922, 1, false, ""}, // -(3*10922 + 1) - 1 = -32768
		{"goto", 10922, 2, false, "off would be -32769, which 16 bits don't hold"},
		{"if r1 != 5 goto", 10921, 2, false, ""}, // -(3*10921 + 2) - 3
		{"if r1 != 5 goto", 10922, 0, false, "off would be -32769, which 16 bits don't hold"},
		{"gotol", 30000, 0, false, ""},
	} {
		name := fmt.Sprintf("%s over %d*3+%d, behind %v", tt.jump, tt.grow, tt.stay, tt.behind)
		way := slices.Concat(repeat(t, tt.stay, "r3 = r4"), repeat(t, tt.grow, "r3 += 5"))
		slot, d := len(way), -len(way)-1
		if tt.behind {
			slot, d = 0, len(way)
		}
		space := " "
		if tt.jump == "call pc" {
			space = ""
		}
		text := fmt.Sprintf("%s%s%+d", tt.jump, space, d)
		p := &bpf.Program{Insns: slices.Insert(way, slot, testprog.Parse(t, text).Insns...)}
		p.Insns = append(p.Insns, testprog.Parse(t, "exit").Insns...)
		var r Result
		err := r.Rewrite(p, nil)
		if tt.error != "" {
			wantRange(t, err, slot, fmt.Sprintf("slot %d (%s): %s", slot, text, tt.error))
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		now := int(r.Index[slot+1]) - 1
		nd, _ := bpf.Distance(r.Program.Insns[now])
		if got, want := now+1+int(nd), int(r.Index[slot+1+d]); got != want {
			t.Errorf("%s: leads to slot %d, want %d", name, got, want)
		}
		if tt.jump == "call pc" {
			continue // the kernel profile has one function
		}
		jumpsLand(t, &r.Program)
	}
}

// TestCVE2021_29154 compiles programs full of jumps near the limit of short
// ones, with many different constants in place of each: the code comes out in
// other lengths every time, and whatever the passes make of it, each jump
// must end where its target begins. A stable length is not yet a fixed point.
func TestCVE2021_29154(t *testing.T) {
	r := rand.New(rand.NewPCG(29154, 0))
	lengths := map[int]bool{}
	for range 20 {
		p := jumpy(t, r)
		for range 20 {
			np, err := Rewrite(p, &words{next: func() uint32 {
				// Small numbers too, which make short constants.
				return uint32(int32(r.Uint32()) >> r.IntN(32))
			}})
			if err != nil {
				t.Fatal(err)
			}
			lengths[jumpsLand(t, np)] = true
		}
	}
	if len(lengths) < 200 {
		t.Errorf("only %d lengths in 400 programs", len(lengths))
	}
}

// jumpy makes a program of jumps, of which many are about 123 bytes long.
func jumpy(t *testing.T, r *rand.Rand) *bpf.Program {
	some := testprog.Parse(t, "r1 += 5\nif r1 > 9 goto +0\nr2 = r3\nif w4 s<= 3 goto +0\ngoto +0\nr5 = *(u64 *)(r6 + 8)\nif r1 == r2 goto +0").Insns
	p := &bpf.Program{}
	for range 150 {
		p.Insns = append(p.Insns, some[r.IntN(len(some))])
	}
	for i := range p.Insns {
		if _, ok := bpf.Distance(p.Insns[i]); ok {
			to := min(max(i-12+r.IntN(28), 0), len(p.Insns))
			p.Insns[i].Off = int16(to - i - 1)
		}
	}
	p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
	return p
}

// jumpsLand compiles a translated program, reads the code, and follows each
// jump. It returns the length of the code.
func jumpsLand(t *testing.T, p *bpf.Program) int {
	t.Helper()
	profile := jit.Linux618
	profile.ReturnThunk = false
	code, err := jit.Compile(p, &profile, &jit.Function{})
	if err != nil {
		t.Fatal(err)
	}
	begins := func(slot int) int {
		if slot == 0 {
			return int(code.Funcs[0].Body)
		}
		return int(code.Ends[slot-1])
	}
	for slot, insn := range p.Insns {
		d, ok := bpf.Distance(insn)
		if !ok {
			continue
		}
		// The jump is the last instruction; nops may stand in front of it.
		at, end, landed := begins(slot), int(code.Ends[slot]), begins(slot+1)
		for at < end {
			inst, err := x86asm.Decode(code.Bytes[at:end], 64)
			if err != nil {
				t.Fatalf("slot %d: % x: %v", slot, code.Bytes[at:end], err)
			}
			at += inst.Len
			if rel, ok := inst.Args[0].(x86asm.Rel); ok {
				landed = at + int(rel)
			}
		}
		if want := begins(slot + 1 + int(d)); landed != want {
			t.Errorf("slot %d (%s) jumps to %#x, its target is at %#x", slot, bpf.Text(insn), landed, want)
		}
	}
	return len(code.Bytes)
}

// TestIndexOfTooFar: where a jump of a long program leads too far, Index is complete
// and says which other ones do.
func TestIndexOfTooFar(t *testing.T) {
	const n = 60_000
	insns := slices.Repeat([]bpf.Insn{{Op: 0x07, Regs: 1, Imm: 5}}, n) // r1 += 5
	insns[0] = bpf.Insn{Op: abi.OpJa, Off: 32000}
	insns[n-1] = bpf.Insn{Op: abi.OpExit}
	var r Result
	err := r.Rewrite(&bpf.Program{Insns: insns}, nil)
	var e *bpf.Error
	if !errors.Is(err, bpf.ErrRange) || !errors.As(err, &e) || e.Slot != 0 {
		t.Fatalf("error %v, want ErrRange about slot 0", err)
	}
	if len(r.Index) != n+1 || r.Index[n] != 3*(n-2)+2 {
		t.Errorf("an index of %d slots that ends at %d", len(r.Index), r.Index[len(r.Index)-1])
	}
}
