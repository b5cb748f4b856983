package interp

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// sharedFile opens a file of ../shared, beside the module's root, or skips.
func sharedFile(t *testing.T, name string) *os.File {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
	f, err := os.Open(filepath.Join(dir, "..", "shared", name))
	if err != nil {
		if os.Getenv("BPFJIT_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no shared test data: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestConformance runs the vectors of the public conformance suite, and
// compares all 64 bits of R0.
func TestConformance(t *testing.T) {
	sc := bufio.NewScanner(sharedFile(t, "conformance/open.jsonl"))
	sc.Buffer(nil, 1<<20)
	n := 0
	for sc.Scan() {
		var row struct {
			Name    string `json:"name"`
			Program string `json:"program_hex"`
			Mem     string `json:"mem_hex"`
			Expect  string `json:"expect"`
		}
		if err := json.Unmarshal(sc.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(row.Name, func(t *testing.T) {
			code, err := hex.DecodeString(row.Program)
			if err != nil {
				t.Fatal(err)
			}
			mem, err := hex.DecodeString(row.Mem)
			if err != nil {
				t.Fatal(err)
			}
			want, err := strconv.ParseUint(row.Expect, 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			insns, err := bpf.Decode(code)
			if err != nil {
				t.Fatal(err)
			}
			prog := prepare(t, &bpf.Program{Insns: insns})
			for kind := range kinds() {
				cfg := &Config{Budget: 1 << 20, Helper: func(number uint32) abi.HelperFunc {
					if number != 5 { // ktime_get_ns, whose result isn't used
						return nil
					}
					return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 1, nil }
				}}
				if len(mem) > 0 {
					cfg.R1, cfg.R2 = abi.MemBase, uint64(len(mem))
				}
				got := prog.Run(newInstance(t, kind, mem), cfg)
				if got.Stop != abi.StopExit || got.R0 != want {
					t.Errorf("%+v, want r0 = %#x", got, want)
				}
			}
		})
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Error("no vectors")
	}
	t.Logf("%d vectors", n)
}
