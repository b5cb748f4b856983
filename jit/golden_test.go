package jit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
)

// goldenRow is a function as Linux 6.18 compiled it.
type goldenRow struct {
	Desc  string `json:"desc"`
	Insns string `json:"jit_in_hex"`
	Code  string `json:"jited_hex"`
	Mask  string `json:"mask_hex"` // 00: depends on an address
	Param struct {
		StackDepth        int     `json:"stack_depth"`
		Subprogram        bool    `json:"is_subprog"`
		TailCallReachable bool    `json:"tail_call_reachable"`
		ExceptionBoundary bool    `json:"exception_boundary"`
		ExceptionCallback bool    `json:"exception_cb"`
		ArenaKernel       *string `json:"arena_vm_start"`
		ArenaUser         *string `json:"arena_user_vm_start"`
		PrivateStack      *string `json:"priv_frame_ptr"`
	} `json:"params"`
	Passes   int   `json:"passes"`
	ProgLens []int `json:"proglens"`
}

func (r *goldenRow) function(t *testing.T) *Function {
	number := func(s *string) uint64 {
		if s == nil {
			return 0
		}
		v, err := strconv.ParseUint(*s, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	p := r.Param
	return &Function{
		StackDepth: p.StackDepth, Subprogram: p.Subprogram, TailCallReachable: p.TailCallReachable,
		ExceptionBoundary: p.ExceptionBoundary, ExceptionCallback: p.ExceptionCallback,
		ArenaKernel: number(p.ArenaKernel), ArenaUser: number(p.ArenaUser), PrivateStack: number(p.PrivateStack),
	}
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden compares every row of the golden file with what Linux emitted.
func TestGolden(t *testing.T) {
	path := filepath.Join("..", "..", "shared", "spec", "golden-6.18.jsonl")
	f, err := os.Open(path)
	if err != nil {
		if os.Getenv("BPFJIT_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no golden file beside the module: %v", err)
	}
	defer f.Close()
	rows, equal := 0, 0
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		var r goldenRow
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		rows++
		if compareGolden(t, &r) {
			equal++
		}
	}
	t.Logf("golden %d/%d", equal, rows)
	if rows != 289 {
		t.Errorf("%d rows, want 289", rows)
	}
}

func compareGolden(t *testing.T, r *goldenRow) bool {
	insns, err := bpf.Decode(unhex(t, r.Insns))
	if err != nil {
		t.Errorf("%s: %v", r.Desc, err)
		return false
	}
	profile := Linux618
	profile.Percpu = -0x7c4f1fd8 // 0x83b0e028, of the kernel that made the rows
	code, err := Compile(&bpf.Program{Insns: insns}, &profile, r.function(t))
	if err != nil {
		t.Errorf("%s: %v", r.Desc, err)
		return false
	}
	want, mask := unhex(t, r.Code), unhex(t, r.Mask)
	if len(code.Bytes) != len(want) {
		t.Errorf("%s: %d bytes, want %d\n got %x\nwant %x", r.Desc, len(code.Bytes), len(want), code.Bytes, want)
		return false
	}
	got := bytes.Clone(code.Bytes)
	for i, m := range mask {
		got[i] &= m
		want[i] &= m
	}
	if !bytes.Equal(got, want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Errorf("%s: differs at %d\n got %x\nwant %x", r.Desc, i, got, want)
		return false
	}
	if passes := code.Funcs[0].Passes; len(passes) != r.Passes || !slices.Equal(passes, r.ProgLens) {
		t.Errorf("%s: passes %v, want %v", r.Desc, passes, r.ProgLens)
		return false
	}
	return true
}
