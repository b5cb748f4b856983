package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/machine"
)

// sharedRow has what the three files of shared vectors hold.
type sharedRow struct {
	Desc, Name string
	// Golden functions: what Linux 6.18 was given and what it emitted.
	JitIn    string          `json:"jit_in_hex"`
	Jited    string          `json:"jited_hex"`
	Mask     string          `json:"mask_hex"` // 00: depends on an address
	Params   json.RawMessage `json:"params"`
	Passes   int             `json:"passes"`
	Proglens []int           `json:"proglens"`
	// Programs of the public conformance suite.
	Program string `json:"program_hex"`
	Mem     string `json:"mem_hex"`
	Expect  string `json:"expect"`
}

// sharedRows reads a file beside the module.
func sharedRows(t *testing.T, path ...string) (rows []sharedRow) {
	b, err := os.ReadFile(filepath.Join(append([]string{testprog.Shared(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var r sharedRow
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

// vectorsOf sends rows through the command and returns its answers.
func vectorsOf(t *testing.T, rows []sharedRow, args ...string) []vectorOut {
	var in, out, errs bytes.Buffer
	for _, r := range rows {
		m := map[string]any{"name": r.Name + r.Desc, "insns_hex": r.Program + r.JitIn, "mem_hex": r.Mem}
		if r.Params != nil {
			m["params"] = r.Params
		}
		if err := json.NewEncoder(&in).Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	if code := run(&in, &out, &errs, append([]string{"vectors"}, args...)); code != 0 {
		t.Fatalf("vectors %v: exit %d: %s", args, code, &errs)
	}
	var answers []vectorOut
	for line := range bytes.Lines(out.Bytes()) {
		var a vectorOut
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(rows) {
		t.Fatalf("vectors %v: %d answers to %d rows", args, len(answers), len(rows))
	}
	return answers
}

// TestSharedVectors sends all shared vectors through 'bpfjit vectors'.
func TestSharedVectors(t *testing.T) {
	golden := sharedRows(t, "spec", "golden-6.18.jsonl")
	open := sharedRows(t, "conformance", "open.jsonl")
	negative := sharedRows(t, "conformance", "negative.jsonl")

	equal := 0
	for i, a := range vectorsOf(t, golden, "-profile", "kernel") {
		r := &golden[i]
		switch {
		case a.Error != "":
			t.Errorf("%s: %s", r.Desc, a.Error)
		case !equalMasked(t, a.Code, r.Jited, r.Mask):
			t.Errorf("%s:\n got %s\nwant %s\nmask %s", r.Desc, a.Code, r.Jited, r.Mask)
		case a.Passes != r.Passes || !slices.Equal(a.ProgLens, r.Proglens):
			t.Errorf("%s: %d passes %v, want %d %v", r.Desc, a.Passes, a.ProgLens, r.Passes, r.Proglens)
		default:
			equal++
		}
	}

	engines := [][]string{{"-engine", "interp"}}
	if machine.Available() == nil {
		engines = append(engines, []string{"-engine", "jit"}, []string{"-engine", "jit", "-blind"})
	}
	right := len(open)
	for _, engine := range engines {
		n := 0
		for i, a := range vectorsOf(t, open, engine...) {
			if a.Error != "" || a.R0 != open[i].Expect {
				t.Errorf("%s: %s: r0 %s, error %q, want %s", open[i].Name, engine, a.R0, a.Error, open[i].Expect)
				continue
			}
			n++
		}
		right = min(right, n)
	}

	refused := 0
	for i, a := range vectorsOf(t, negative) {
		// Such as "negative/unused-be16-offset": the last word is the field.
		field := negative[i].Name[strings.LastIndex(negative[i].Name, "-")+1:]
		field = strings.Replace(field, "offset", "off", 1)
		if a.Insn == nil || *a.Insn != 0 || !strings.Contains(a.Error, field+" is") || a.Engine != "" {
			t.Errorf("%s: instruction %v, error %q, engine %q; want slot 0 and %s", negative[i].Name, a.Insn, a.Error, a.Engine, field)
			continue
		}
		refused++
	}
	t.Logf("golden %d/%d, open %d/%d, negative %d/%d", equal, len(golden), right, len(open), refused, len(negative))
	if len(golden) != 289 || len(open) != 210 || len(negative) != 45 {
		t.Error("other numbers of vectors than there used to be")
	}
}

// equalMasked compares two codes in hex where a mask isn't 0.
func equalMasked(t *testing.T, a, b, mask string) bool {
	decode := func(s string) []byte {
		v, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	x, y, m := decode(a), decode(b), decode(mask)
	if len(x) != len(y) || len(y) != len(m) {
		return false
	}
	for i := range x {
		if (x[i]^y[i])&m[i] != 0 {
			return false
		}
	}
	return true
}
