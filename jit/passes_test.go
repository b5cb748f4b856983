package jit

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// ladder is a program whose h jumps shrink one after the other: each
// conditional jump goes over the others to a ja that lands on the next one.
func ladder(h int) *bpf.Program {
	var insns []abi.Insn
	insns = append(insns, abi.Insn{Op: 0x85, Imm: 22592})
	for i := range h {
		off := h
		if i == h-1 {
			off = h - 1
		}
		insns = append(insns, abi.Insn{Op: 0x15, Off: int16(off), Imm: int32(i + 1)})
	}
	for i := range h - 1 {
		insns = append(insns, abi.Insn{Op: abi.OpJa, Off: int16(h - 2 - i)})
	}
	insns = append(insns, abi.Insn{Op: 0xb7, Imm: 1}, abi.Insn{Op: abi.OpExit})
	return &bpf.Program{Insns: insns}
}

// TestLadder: lengths shrink by a jump in every pass, until padding stops it.
func TestLadder(t *testing.T) {
	for _, test := range []struct {
		h      int
		passes []int
	}{
		{4, []int{75, 54, 52, 52, 52}},
		{16, []int{255, 178, 148, 146, 144, 142, 140, 138, 136, 134, 132, 130, 128, 126, 124, 124, 124}},
		{17, []int{270, 194, 160, 154, 152, 150, 148, 146, 144, 142, 140, 138, 136, 134, 132, 132, 132}},
		{100, []int{1515, 1438, 1391, 1359, 1339, 1325, 1314, 1306, 1298, 1293, 1288, 1283, 1278, 1273, 1268, 1268, 1268}},
	} {
		code, err := Compile(ladder(test.h), &Linux618, new(Function))
		if err != nil {
			t.Errorf("h=%d: %v", test.h, err)
			continue
		}
		if diff := cmp.Diff(test.passes, code.Funcs[0].Passes); diff != "" {
			t.Errorf("h=%d: lengths of passes (-want +got):\n%s", test.h, diff)
		}
	}
}

// pair is a jump ahead over one that goes back to behind the first, with n
// bytes between.
//
//	   jcc far
//	L: n bytes
//	   ja L
//	far:
func pair(n int) *bpf.Program {
	insns := []abi.Insn{{}}
	for n >= 10 {
		insns = append(insns, abi.Insn{Op: abi.OpLdImm64, Imm: 1}, abi.Insn{Imm: 1})
		n -= 10
	}
	for ; n > 3; n -= 4 {
		insns = append(insns, abi.Insn{Op: 0x07}) // add64 r0, 0: 4 bytes
	}
	if n == 3 {
		insns = append(insns, abi.Insn{Op: 0x0f}) // add64 r0, r0
		n = 0
	}
	between := len(insns) - 1
	insns[0] = abi.Insn{Op: 0x15, Off: int16(between + 1), Imm: 1}
	insns = append(insns, abi.Insn{Op: abi.OpJa, Off: int16(-between - 1)}, abi.Insn{Op: abi.OpExit})
	return &bpf.Program{Insns: insns}
}

// TestNoConvergence is the pair of jumps that alternate for ever where short
// jumps reach 127 bytes: the one ahead is long because the one back was, and
// then the one back is short because the code before it has grown. The limit
// of 123 makes it converge.
func TestNoConvergence(t *testing.T) {
	old := Linux513
	old.PadFrom = 0 // kernels before padding went through all passes
	_, err := Compile(pair(123), &old, new(Function))
	if !errors.Is(err, ErrConvergence) {
		t.Errorf("short jumps up to 127: got %v, want ErrConvergence", err)
	} else {
		t.Log(err)
	}
	if _, err := Compile(pair(123), &Linux513, new(Function)); !errors.Is(err, ErrConvergence) {
		t.Errorf("short jumps up to 127, padding: got %v, want ErrConvergence", err)
	} else {
		t.Log(err)
	}
	for n := 100; n < 140; n++ {
		if _, err := Compile(pair(n), &Linux618, new(Function)); err != nil {
			t.Errorf("short jumps up to 123: %v", err)
		}
	}
}

// TestRestless: a program whose length goes up and down for ever, also with
// short jumps up to 123 bytes. Without padding it runs into the limit of 20
// passes, with padding into a jump that no nop fits. Linux 6.18 refuses it too.
func TestRestless(t *testing.T) {
	p := &bpf.Program{Insns: testprog.Restless()}
	for _, padFrom := range []int{0, Linux618.PadFrom} {
		profile := Linux618
		profile.PadFrom = padFrom
		_, err := Compile(p, &profile, new(Function))
		if !errors.Is(err, ErrConvergence) {
			t.Errorf("padding from pass %d: got %v, want ErrConvergence", padFrom, err)
		}
		t.Log(err)
	}
}

// TestCVE_2021_29154: two passes of equal length, but other addresses. Code
// written then would jump to wrong places.
func TestCVE_2021_29154(t *testing.T) {
	p := &bpf.Program{Insns: testprog.Shifting()}
	_, err := Compile(p, &Linux618, new(Function))
	if !errors.Is(err, ErrConvergence) || !strings.Contains(err.Error(), "other addresses") {
		t.Errorf("got %v, want ErrConvergence for other addresses", err)
	}
}

// TestJumpEdges: a jump is short over up to 123 bytes ahead, 128 back.
func TestJumpEdges(t *testing.T) {
	for _, test := range []struct{ n, size int }{{122, 2}, {123, 2}, {124, 6}, {126, 6}} {
		p := pair(test.n)
		p.Insns[0].Off-- // to the ja
		p.Insns[len(p.Insns)-2].Off = 0
		code, err := Compile(p, &Linux618, new(Function))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(code.Ends[0]) - int(code.Funcs[0].Body) - 4; got != test.size {
			t.Errorf("over %d bytes: jump of %d bytes, want %d", test.n, got, test.size)
		}
	}
}

// TestPadding: Func.Padding counts the nops of late passes. 17 rungs are the
// first that need one, in the place of a jump that would vanish.
func TestPadding(t *testing.T) {
	for _, tt := range []struct{ rungs, padding int }{{16, 0}, {17, 2}, {100, 5}} {
		p := ladder(tt.rungs)
		code, err := Compile(p, &Linux618, &Function{})
		if err != nil {
			t.Fatal(err)
		}
		if f := code.Funcs[0]; f.Padding != tt.padding {
			t.Errorf("%d rungs: padding of %d bytes, want %d; lengths %v", tt.rungs, f.Padding, tt.padding, f.Passes)
		}
	}
}
