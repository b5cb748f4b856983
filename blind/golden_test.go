package blind

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/google/go-cmp/cmp"
)

// goldenRow is a function as Linux 6.18 translated, blinded and compiled it.
type goldenRow struct {
	Desc   string `json:"desc"`
	Plain  string `json:"xlated_hex"` // translated
	Hidden string `json:"jit_in_hex"` // and blinded
	Code   string `json:"jited_hex"`
	Mask   string `json:"mask_hex"` // 00: depends on an address
	Param  struct {
		StackDepth int  `json:"stack_depth"`
		Blinded    bool `json:"blinded"`
	} `json:"params"`
}

// TestGolden takes the kernel's random numbers out of what it blinded, and
// with them comes to the same instructions and the same code.
func TestGolden(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "..", "shared", "spec", "golden-6.18.jsonl"))
	if err != nil {
		if os.Getenv("BPFJIT_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no golden file beside the module: %v", err)
	}
	defer f.Close()
	rows := 0
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		var r goldenRow
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Param.Blinded {
			rows++
			t.Run(r.Desc, func(t *testing.T) { compareGolden(t, &r) })
		}
	}
	if rows != 12 {
		t.Errorf("%d blinded rows, want 12", rows)
	}
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compareGolden(t *testing.T, r *goldenRow) {
	plain, err := bpf.Decode(unhex(t, r.Plain))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := bpf.Decode(unhex(t, r.Hidden))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Rewrite(&bpf.Program{Insns: plain}, list(drawn(hidden)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(hidden, got.Insns) {
		t.Fatalf("(-kernel +got):\n%s", cmp.Diff(hidden, got.Insns))
	}
	code, err := jit.Compile(got, &jit.Linux618, &jit.Function{StackDepth: r.Param.StackDepth})
	if err != nil {
		t.Fatal(err)
	}
	want, mask := unhex(t, r.Code), unhex(t, r.Mask)
	have := bytes.Clone(code.Bytes)
	if len(have) == len(want) {
		for i, m := range mask {
			have[i] &= m
			want[i] &= m
		}
	}
	if !bytes.Equal(have, want) {
		t.Errorf("code\n got %x\nwant %x", have, want)
	}
}
