package corpus

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

// TestGenerate compares generated programs with what they imitate.
func TestGenerate(t *testing.T) {
	const n = 100_000
	insns, err := Generate(n, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(insns) != n || insns[n-1].Op != abi.OpExit {
		t.Fatalf("%d slots, the last one %+v", len(insns), insns[len(insns)-1])
	}
	count := map[uint8]int{}
	var distances []int
	backward, total := 0, 0
	for at := 0; at < n; at++ {
		i := insns[at]
		count[i.Op]++
		total++
		if jumps(i.Op) {
			to := at + 1 + int(i.Off)
			if to < 0 || to >= n || to > 0 && insns[to-1].Op == abi.OpLdImm64 {
				t.Fatalf("slot %d jumps to %d", at, to)
			}
			if i.Off < 0 {
				backward++
			}
			distances = append(distances, max(int(i.Off), -int(i.Off)))
		}
		if i.Op == abi.OpLdImm64 {
			at++
		}
	}
	rows, err := table()
	if err != nil {
		t.Fatal(err)
	}
	want, all := map[uint8]float64{}, float64(rows[len(rows)-1].below)
	for i, r := range rows {
		n := r.below
		if i > 0 {
			n -= rows[i-1].below
		}
		want[r.op] += float64(n) / all
	}
	for op, share := range want {
		got := float64(count[op]) / float64(total)
		// Five standard deviations.
		if d := 5 * math.Sqrt(share/float64(total)); math.Abs(got-share) > d+1e-4 {
			t.Errorf("opcode %#02x: %.4f of all, want %.4f", op, got, share)
		}
	}
	slices.Sort(distances)
	if m := distances[len(distances)/2]; m < 25 || m > 60 {
		t.Errorf("the median jump goes %d slots, want about 37", m)
	}
	if share := float64(backward) / float64(len(distances)); share < 0.10 || share > 0.14 {
		t.Errorf("%.2f of the jumps go back, want 0.12", share)
	}
	again, err := Generate(n, 1)
	if err != nil || !slices.Equal(again, insns) {
		t.Errorf("the same seed gives another program (error %v)", err)
	}
}

func TestKernels(t *testing.T) {
	programs, err := Kernels()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(programs) != 8 {
		t.Errorf("%d kernels, want 8", len(programs))
	}
	for _, p := range programs {
		for at, i := range p.Insns {
			if i.Op != abi.OpCall {
				continue
			}
			if to := at + 1 + int(i.Imm); i.Src() != abi.CallLocal || to <= at || to >= len(p.Insns) {
				t.Errorf("%s: slot %d calls slot %d of %d", p.Name, at, to, len(p.Insns))
			}
		}
		if i := p.Insns[len(p.Insns)-1]; i.Op != abi.OpExit && i.Op != abi.OpJa {
			t.Errorf("%s ends with %+v", p.Name, i)
		}
	}
}

func TestShared(t *testing.T) {
	programs, left, err := Shared()
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("BPFJIT_REQUIRE_SHARED") != "1" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(programs) == 0 || left == 0 {
		t.Errorf("%d programs, %d left out", len(programs), left)
	}
	t.Logf("%d programs, %d slots, %d left out for their packet loads", len(programs), Slots(programs), left)
}
