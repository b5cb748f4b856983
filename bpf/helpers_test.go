package bpf_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs; go test -update rewrites it (-want +got):\n%s", path, d)
	}
}

// program parses a listing.
func program(t testing.TB, text string) *bpf.Program {
	t.Helper()
	insns, err := bpf.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &bpf.Program{Insns: insns}
}

// random returns a generator whose seed it prints; BPFJIT_SEED sets it.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BPFJIT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("BPFJIT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// shared opens a file of the shared folder beside the module.
func shared(t *testing.T, name string) *os.File {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
		} else {
			t.Fatal("no go.mod above the test")
		}
	}
	f, err := os.Open(filepath.Join(dir, "..", "shared", name))
	if err != nil {
		if os.Getenv("BPFJIT_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no shared folder beside the module: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
