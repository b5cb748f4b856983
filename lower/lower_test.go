package lower_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/lower"
	"github.com/google/go-cmp/cmp"
)

// before is what the golden files have in front of the lowered program.
const before = "; lowered: + is inserted, the second number is the source slot\n"

// TestGolden lowers the programs in testdata. A file has the source, and
// behind a line of its own the lowered program.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source, _, _ := strings.Cut(string(text), before)
		p := testprog.Parse(t, source)
		var survey bpf.Survey
		if err := survey.Check(p, bpf.Source); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		np, err := lower.Lower(p)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var r lower.Result
		if err := r.LowerSurveyed(&survey); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if diff := cmp.Diff(np, &r.Program); diff != "" {
			t.Errorf("%s: by a survey of its own and that of the check (-own +check):\n%s", path, diff)
		}
		want, err := bpf.Functions(np)
		if diff := cmp.Diff(want, r.Funcs); diff != "" || err != nil {
			t.Errorf("%s: functions %v (-want +got):\n%s", path, err, diff)
		}
		var got strings.Builder
		got.WriteString(source + before)
		np.List(&got, bpf.ListOptions{Numbers: true, Marks: true})
		golden.Compare(t, path, got.String())
	}
}

// TestDivision runs every kind of division with the numbers that matter, by
// every kind of register, and compares with RFC 9669. run fails where x86
// would trap.
func TestDivision(t *testing.T) {
	numbers := []uint64{0, 1, 2, 7, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 0x1_00000000, 0x1_00000001,
		0x7fffffff_ffffffff, 0x80000000_00000000, 0x80000000_00000001, 0x80000000_80000000, 0xffffffff_00000000, 0xffffffff_7fffffff,
		0xffffffff_80000000, 0xffffffff_fffffff9, 0xffffffff_ffffffff, 0x5_ffffffff, 0xffffffff_00000001}
	count := 0
	for _, op := range []string{"/=", "%=", "s/=", "s%="} {
		for _, width := range []int{64, 32} {
			name := map[int]string{64: "r", 32: "w"}[width]
			for _, a := range numbers {
				for _, b := range numbers {
					want := divide(op, width, a, b)
					p := testprog.Parse(t, fmt.Sprintf("%s1 %s %s2\nexit", name, op, name))
					checkRun(t, p, map[int]uint64{1: a, 2: b}, want)
					if a == b { // the same register twice
						p := testprog.Parse(t, fmt.Sprintf("%s1 %s %s1\nexit", name, op, name))
						checkRun(t, p, map[int]uint64{1: a}, want)
					}
					if uint64(int64(int32(b))) == b {
						p := testprog.Parse(t, fmt.Sprintf("%s1 %s %d\nexit", name, op, int32(b)))
						checkRun(t, p, map[int]uint64{1: a}, want)
					}
					count++
				}
			}
		}
	}
	t.Logf("%d divisions", count)
}

// divide is RFC 9669, section 4.1.
func divide(op string, width int, a, b uint64) uint64 {
	mask := ^uint64(0)
	if width == 32 {
		mask = 0xffffffff
	}
	a, b = a&mask, b&mask
	sa, sb := int64(a), int64(b)
	if width == 32 {
		sa, sb = int64(int32(a)), int64(int32(b))
	}
	mod := strings.Contains(op, "%")
	switch {
	case b == 0 && mod:
		return a
	case b == 0:
		return 0
	case op == "/=":
		return a / b
	case op == "%=":
		return a % b
	case mod: // Go defines the least number % -1 as 0, / -1 as itself
		return uint64(sa%sb) & mask
	}
	return uint64(sa/sb) & mask
}

func checkRun(t *testing.T, p *bpf.Program, regs map[int]uint64, want uint64) {
	t.Helper()
	np, err := lower.Lower(p)
	if err != nil {
		t.Fatal(err)
	}
	var r [12]uint64
	for k, v := range regs {
		r[k] = v
	}
	r[abi.AX] = 0xdeadbeefcafef00d
	for k, v := range regs {
		if k != 1 {
			defer func() {
				if r[k] != v {
					t.Errorf("r%d changed", k)
				}
			}()
		}
	}
	if err := run(np, &r); err != nil || r[1] != want {
		var s strings.Builder
		np.List(&s, bpf.ListOptions{Numbers: true})
		t.Errorf("registers %x: r1 = %#x, %v, want %#x in\n%s", regs, r[1], err, want, s.String())
	}
}

// TestMayGoto counts how often may_goto falls through. The counter's first
// value is made smaller for that.
func TestMayGoto(t *testing.T) {
	p := testprog.Parse(t, `
		r0 += 1
		may_goto +1
		goto -3
		exit`)
	np, err := lower.Lower(p)
	if err != nil {
		t.Fatal(err)
	}
	if set := bpf.Text(np.Insns[0]); set != fmt.Sprintf("*(u64 *)(r10 - 520) = %d", abi.MayGotoCount) {
		t.Errorf("begins with %s", set)
	}
	np.Insns[0].Imm = 1000
	var r [12]uint64
	if err := run(np, &r); err != nil || r[0] != 1001 {
		t.Errorf("r0 = %d, %v, want 1001", r[0], err)
	}
}

// TestLowerPure doesn't change its input.
func TestLowerPure(t *testing.T) {
	p := testprog.Parse(t, "r1 s%= r2\nmay_goto -2\nif r1 == 0 goto -3\nexit")
	insns := slices.Clone(p.Insns)
	np, err := lower.Lower(p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(insns, p.Insns) || p.Flags != nil || p.Origin != nil {
		t.Error("the program handed in changed")
	}
	if np.Flags == nil || len(np.Flags) != len(np.Insns) || len(np.Origin) != len(np.Insns) {
		t.Error("flags or origins are missing")
	}
}

// TestLowerRange has a branch over so many divisions that it no longer fits.
func TestLowerRange(t *testing.T) {
	p := testprog.Parse(t, "if r1 == 0 goto +7000\n"+strings.Repeat("r1 s/= r2\n", 7000)+"exit")
	_, err := lower.Lower(p)
	var e *bpf.Error
	if !errors.Is(err, bpf.ErrRange) || !errors.As(err, &e) || e.Slot != 0 || e.Field != "off" {
		t.Errorf("error %v", err)
	}
	p = testprog.Parse(t, "r1 s/= r2\ncall pc+99\nexit")
	if _, err = lower.Lower(p); !errors.As(err, &e) || e.Slot != 1 {
		t.Errorf("error %v", err)
	}
}
