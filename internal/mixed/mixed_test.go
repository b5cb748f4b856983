package mixed_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/mixed"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
)

// TestReal compares mixed programs with what they imitate.
func TestReal(t *testing.T) {
	seed := testprog.Seed(t)
	for _, n := range []int{2, 3, 20, 100, 1000, 10000, 100000, 1000000} {
		if n > 100000 && testing.Short() {
			continue
		}
		p := mixed.Real().Program(seed, n)
		if len(p) != n {
			t.Fatalf("%d slots, want %d", len(p), n)
		}
		if err := bpf.Check(&bpf.Program{Insns: p}, bpf.Source); err != nil {
			t.Errorf("%d slots: %v", n, err)
		}
		if again := mixed.Real().Program(seed, n); !slices.Equal(again, p) {
			t.Errorf("%d slots: made twice, and different", n)
		}
	}
	const n = 200000
	p := mixed.Real().Program(seed, n)
	got, total := map[mixed.Kind]int{}, 0
	var distances []int
	backward := 0
	for s := 0; s < n; s++ {
		in := p[s]
		key, ok := mixed.KindOf(in)
		if !ok {
			t.Errorf("slot %d: %+v", s, in)
		}
		got[key]++
		total++
		f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
		if flow := tables.Forms[f].Flow; flow == tables.FlowBranch || flow == tables.FlowJump {
			if in.Off < 0 {
				backward++
			}
			distances = append(distances, max(int(in.Off), -int(in.Off)))
		}
		if in.Op == abi.OpLdImm64 {
			s++
		}
	}
	sum := 0
	for _, f := range mixed.RealPrograms {
		sum += f.Count()
	}
	for _, f := range mixed.RealPrograms {
		want := float64(f.Count()) / float64(sum)
		have := float64(got[f.Kind()]) / float64(total)
		if math.Abs(have-want) > 6*math.Sqrt(want/float64(total))+2e-4 {
			t.Errorf("%+v: %.5f of all, want %.5f", f.Kind(), have, want)
		}
	}
	slices.Sort(distances)
	median, decile := distances[len(distances)/2], distances[len(distances)*9/10]
	back := float64(backward) / float64(len(distances))
	t.Logf("jumps: median %d, ninth decile %d, longest %d, %.1f %% backward", median, decile, distances[len(distances)-1], 100*back)
	if median < 30 || median > 45 || decile < 550 || decile > 850 || back < 0.10 || back > 0.14 {
		t.Errorf("jumps: median %d, ninth decile %d, backward %.3f", median, decile, back)
	}
}

// TestCompiles: mixed programs settle within the passes that there are,
// of very long ones all but a few.
func TestCompiles(t *testing.T) {
	seed := testprog.Seed(t)
	for _, n := range []int{20, 1000, 10000, 30000, 300000} {
		const tries = 3
		settled := 0
		for k := range uint64(tries) {
			p := mixed.Real().Program(seed+k, n)
			code, err := jit.Compile(&bpf.Program{Insns: p}, &jit.Linux618, new(jit.Function))
			if errors.Is(err, jit.ErrConvergence) && n > 100000 {
				t.Log(err)
				continue
			} else if err != nil {
				t.Errorf("%d slots: %v", n, err)
				continue
			}
			settled++
			t.Logf("%7d slots: %d passes, %.2f bytes a slot", n, len(code.Funcs[0].Passes), float64(len(code.Bytes))/float64(n))
		}
		if settled < tries-1 {
			t.Errorf("%d of %d programs of %d slots settle", settled, tries, n)
		}
	}
}

// TestOf makes programs with the frequencies of others, that of a program with
// every form that there is among them.
func TestOf(t *testing.T) {
	seed := testprog.Seed(t)
	var forms []abi.Insn
	for i := range uint64(200) {
		forms = append(forms, testprog.Wild(seed, i, testprog.Limits{}).Insns...)
	}
	for name, insns := range map[string][]abi.Insn{
		"forms":    forms,
		"exit":     {{Op: abi.OpExit}},
		"constant": {{Op: abi.OpLdImm64}, {}},
		"call":     {{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal)}},
	} {
		m := mixed.Of(insns)
		for _, n := range []int{2, 3, 100, 5000} {
			p := m.Program(seed, n)
			if err := bpf.Check(&bpf.Program{Insns: p}, bpf.Source); err != nil || len(p) != n {
				t.Errorf("%s: %d slots, want %d; %v", name, len(p), n, err)
			}
			if again := mixed.Of(insns).Program(seed, n); !slices.Equal(again, p) {
				t.Errorf("%s: made twice, and different", name)
			}
		}
	}
	if m := mixed.Of([]abi.Insn{{Op: abi.OpMayGoto}}); m != nil {
		t.Errorf("a mix of nothing: %+v", m)
	}
	// The frequencies are those of the program: a program made of a program.
	const n = 100_000
	p := mixed.Real().Program(seed, n)
	count := func(insns []abi.Insn) (loads int) {
		for _, in := range insns {
			if in.Op&abi.ClassMask == abi.ClassLDX {
				loads++
			}
		}
		return loads
	}
	if a, b := count(p), count(mixed.Of(p).Program(seed+1, n)); max(a-b, b-a) > n/50 {
		t.Errorf("%d loads, and %d in the copy", a, b)
	}
}

// TestSharedFrequencies: the table is that of the shared data, without packet
// loads.
func TestSharedFrequencies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testprog.Shared(t), "bench", "opcodes.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for line := range strings.Lines(string(text)) {
		columns := strings.Split(strings.TrimSpace(line), "\t")
		if line[0] != '#' && !strings.HasPrefix(columns[1], "LD ABS") && !strings.HasPrefix(columns[1], "LD IND") {
			want = append(want, columns[0]+" "+columns[2])
		}
	}
	for _, r := range mixed.RealPrograms {
		got = append(got, fmt.Sprintf("%#02x %d", r.Kind().Op(), r.Count()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("opcodes.tsv (-), the table (+):\n%s", d)
	}
}
