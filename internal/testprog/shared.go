package testprog

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// EnvShared is the environment variable that makes Shared fail where it would
// skip, if it is set to 1.
const EnvShared = "BPFJIT_REQUIRE_SHARED"

// Shared returns the folder with test data that is no part of the repository:
// "shared", beside the root of the module. Without it the test is skipped, or
// fails with BPFJIT_REQUIRE_SHARED=1.
func Shared(t testing.TB) string {
	t.Helper()
	dir, err := sharedDir()
	if err == nil {
		return dir
	}
	if os.Getenv(EnvShared) == "1" {
		t.Fatalf("%s=1, but: %v", EnvShared, err)
	}
	t.Skipf("needs test data from outside of the repository: %v", err)
	return ""
}

// sharedDir walks up from the working directory to each go.mod, since a
// nested module lies within the repository as well.
func sharedDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(filepath.Dir(dir), "shared")
			if i, err := os.Stat(shared); err == nil && i.IsDir() {
				return shared, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no folder \"shared\" beside the module: %w", fs.ErrNotExist)
		}
	}
}

// Hex is bytes that JSON holds as hexadecimal digits.
type Hex []byte

// UnmarshalJSON reads a string of hexadecimal digits.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// Slots is a program that JSON holds as hexadecimal digits.
type Slots []abi.Insn

// UnmarshalJSON reads slots of 16 hexadecimal digits.
func (s *Slots) UnmarshalJSON(b []byte) error {
	var h Hex
	if err := h.UnmarshalJSON(b); err != nil {
		return err
	}
	v, err := bpf.Decode(h)
	*s = v
	return err
}

// Word is a number that JSON holds as a string such as "0x1f", or as null.
type Word struct {
	Value uint64
	Set   bool // not null
}

// UnmarshalJSON reads a number in the syntax of Go, or null.
func (w *Word) UnmarshalJSON(b []byte) error {
	*w = Word{}
	if string(b) == "null" {
		return nil
	}
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return err
	}
	w.Set = true
	w.Value, err = strconv.ParseUint(s, 0, 64)
	return err
}

// CorpusRow is a real program of bench/corpus.jsonl.gz: its maps are plain
// constants.
type CorpusRow struct {
	Name  string `json:"name"`
	Insns Slots  `json:"insns_hex"`
}

// OpenRow is a program of the public conformance suite, with its result.
type OpenRow struct {
	Name   string   `json:"name"`
	CPU    string   `json:"cpu"`    // v1 to v4
	Groups []string `json:"groups"` // of RFC 9669
	Insns  Slots    `json:"program_hex"`
	Memory Hex      `json:"mem_hex"` // R1 and R2 are its address and length; empty: both 0
	Expect Word     `json:"expect"`  // all 64 bits of R0
}

// NegativeRow is a program that must be refused, since a reserved field isn't
// zero.
type NegativeRow struct {
	Name    string `json:"name"`
	Comment string `json:"comment"`
	Insns   Slots  `json:"program_hex"`
}

// Field is what the row's name ends in: off, imm, src or dst, as bpf.Error
// names it.
func (r *NegativeRow) Field() string {
	f := r.Name[strings.LastIndexByte(r.Name, '-')+1:]
	if f == "offset" {
		return "off"
	}
	return f
}

// GoldenRow is a function as Linux 6.18 compiled it.
type GoldenRow struct {
	Desc   string `json:"desc"`
	Loaded Slots  `json:"insns_hex"`  // the whole program, in the first function's row
	Xlated Slots  `json:"xlated_hex"` // the kernel's dump
	Insns  Slots  `json:"jit_in_hex"` // the dump with hidden opcodes restored
	Jited  Hex    `json:"jited_hex"`
	Mask   Hex    `json:"mask_hex"` // ff: must be equal, 00: depends on an address
	Params struct {
		ProgType          int  `json:"prog_type"`
		StackDepth        int  `json:"stack_depth"`
		Subprog           bool `json:"is_subprog"`
		TailCallReachable bool `json:"tail_call_reachable"`
		ExceptionBoundary bool `json:"exception_boundary"`
		ExceptionCallback bool `json:"exception_cb"`
		ArenaKernel       Word `json:"arena_vm_start"`
		ArenaUser         Word `json:"arena_user_vm_start"`
		PrivateFrame      Word `json:"priv_frame_ptr"`
		Image             Word `json:"image"`
		BMI2              bool `json:"bmi2"`
		Blinded           bool `json:"blinded"`
	} `json:"params"`
	// Passes and ProgLens are those of a model: the kernel doesn't show them.
	Passes   int   `json:"passes"`
	ProgLens []int `json:"proglens"` // of each pass
}

// Equal reports whether code is what the kernel emitted, but for addresses.
func (r *GoldenRow) Equal(code []byte) bool {
	if len(code) != len(r.Jited) || len(code) != len(r.Mask) {
		return false
	}
	for i, m := range r.Mask {
		if (code[i]^r.Jited[i])&m != 0 {
			return false
		}
	}
	return true
}

// Corpus reads the real programs. Like the readers below it skips or fails the
// test as Shared does.
func Corpus(t testing.TB) []CorpusRow {
	t.Helper()
	return rows[CorpusRow](t, "bench/corpus.jsonl.gz")
}

// Open reads the conformance programs that have a result.
func Open(t testing.TB) []OpenRow {
	t.Helper()
	return rows[OpenRow](t, "conformance/open.jsonl")
}

// Negative reads the conformance programs that must be refused.
func Negative(t testing.TB) []NegativeRow {
	t.Helper()
	return rows[NegativeRow](t, "conformance/negative.jsonl")
}

// Golden reads the functions that Linux 6.18 compiled.
func Golden(t testing.TB) []GoldenRow {
	t.Helper()
	return rows[GoldenRow](t, "spec/golden-6.18.jsonl")
}

// rows reads a file of the shared folder, one JSON value a line.
func rows[T any](t testing.TB, name string) []T {
	t.Helper()
	f, err := os.Open(filepath.Join(Shared(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := readRows[T](f, strings.HasSuffix(name, ".gz"))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return list
}

func readRows[T any](r io.Reader, zipped bool) ([]T, error) {
	if zipped {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	var list []T
	d := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	for {
		var row T
		switch err := d.Decode(&row); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("row %d: %w", len(list)+1, err)
		}
		list = append(list, row)
	}
}
