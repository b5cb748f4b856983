package image

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	const codeLen = 29 // the table begins at 32
	entries := []Entry{
		NewEntry(4, 5, 0),   // mov rax, [r12+r11+0x10]
		NewEntry(16, 4, -1), // mov [r12+r11], rdi
		NewEntry(25, 4, 15), // mov r15, [r12+r11]
	}
	table := AppendTable(nil, codeLen, entries)
	want := strings.ReplaceAll(`
		e4ffffff 05500000 07000000
		e4ffffff 04010000 07000000
		e1ffffff 04000000 07000000`, "\t", "")
	want = strings.NewReplacer("\n", "", " ", "").Replace(want)
	if got := hex.EncodeToString(table); got != want {
		t.Errorf("encoded as\n%s, want\n%s", got, want)
	}
	back, err := DecodeTable(table, codeLen)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(entries, back); d != "" {
		t.Errorf("decoded (-want +got):\n%s", d)
	}
	for off := range codeLen + 8 {
		e, ok := lookup(table, codeLen, off)
		i := map[int]int{4: 1, 16: 2, 25: 3}[off]
		if ok != (i > 0) || ok && e != entries[i-1] {
			t.Errorf("lookup(%d) = %v, %v", off, e, ok)
		}
	}
}

func TestEntryRegisters(t *testing.T) {
	seen := map[uint32]bool{}
	for reg := range 16 {
		e := NewEntry(0, 3, reg)
		if got, ok := e.Clear(); !ok || got != reg || e.Len() != 3 {
			t.Errorf("register %d: %d, %v; length %d", reg, got, ok, e.Len())
		}
		seen[e.Fixup] = true
	}
	if len(seen) != 16 {
		t.Error("two registers look alike")
	}
	if _, ok := NewEntry(0, 3, -1).Clear(); ok {
		t.Error("none is a register")
	}
}

func TestTableRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		table   []byte
		codeLen int
	}{
		{"incomplete", make([]byte, 11), 100},
		{"behind the code", AppendTable(nil, 8, []Entry{NewEntry(8, 1, 0)}), 8},
		{"across the end", AppendTable(nil, 8, []Entry{NewEntry(5, 4, 0)}), 8},
		{"before the code", AppendTable(nil, 8, []Entry{NewEntry(-4, 4, 0)}), 8},
		{"no length", AppendTable(nil, 8, []Entry{NewEntry(0, 0, 0)}), 8},
		{"order", AppendTable(nil, 16, []Entry{NewEntry(8, 4, 0), NewEntry(4, 4, 0)}), 16},
		{"twice", AppendTable(nil, 16, []Entry{NewEntry(8, 4, 0), NewEntry(8, 4, 0)}), 16},
	} {
		if _, err := DecodeTable(tt.table, tt.codeLen); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

// FuzzTable: a table that decodes encodes to the same bytes, and every row is
// found at its offset.
func FuzzTable(f *testing.F) {
	f.Add(AppendTable(nil, 20, []Entry{NewEntry(4, 5, 0), NewEntry(12, 4, -1)}), 20)
	f.Fuzz(func(t *testing.T, table []byte, codeLen int) {
		if codeLen < 0 || codeLen > 1<<20 {
			return
		}
		entries, err := DecodeTable(table, codeLen)
		if err != nil {
			return
		}
		if string(AppendTable(nil, codeLen, entries)) != string(table) {
			t.Errorf("%x: encoded differently", table)
		}
		for _, e := range entries {
			if got, ok := lookup(table, codeLen, int(e.Offset)); !ok || got != e {
				t.Errorf("lookup(%d) = %v, %v, want %v", e.Offset, got, ok, e)
			}
		}
	})
}
