package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProve proves every row, as the generator does.
func TestProve(t *testing.T) {
	d, err := Read("../bpf.txt", "../x86.txt")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := Build(d)
	if err != nil {
		t.Fatal(err)
	}
	proved, err := tables.Prove()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("rows proved = %d of %d rows", proved, len(tables.Rows))
	if proved != len(tables.Rows) || proved < 400 {
		t.Errorf("%d rows proved, of %d", proved, len(tables.Rows))
	}
}

// TestBadRows plants a mistake in x86.txt; the generator must name file, line
// and reason.
func TestBadRows(t *testing.T) {
	src, err := os.ReadFile("../x86.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, old, new, want string }{
		{"wrong opcode", "REX.W F7 /3           neg dst", "REX.W F7 /2           neg dst", `reads "not rax", want "neg rax"`},
		{"operands the wrong way round", "REX.W 0F AF /r RM     imul dst, src", "REX.W 0F AF /r MR     imul dst, src", `want "imul`},
		{"REX.W forgotten", "REX.W 0F AF /r RM     imul dst, src", "0F AF /r RM     imul dst, src", `reads "imul eax, eax", want "imul rax, rax"`},
		{"condition too wide", "alu64.mul.k     imm8 ", "alu64.mul.k     -    ", "no instruction ever takes this row"},
		{"immediate too short", "69 /r id RM           imul dst.d, dst.d, imm", "69 /r ib RM           imul dst.d, dst.d, imm", "decoded as"},
		{"bare REX forgotten", "REX 0F BE /r RM       movsx dst.d, src.b", "0F BE /r             movsx dst.d, src.b", "/r needs MR or RM"},
		{"unknown form", "alu32.neg       -", "alu32.nega      -", `bpf.txt has no form "alu32.nega"`},
		{"unknown property", "imm<0    REX.W C7", "imm<1    REX.W C7", "no property is named"},
		{"unknown profile", "for kernel cage\n", "for kernel cafe\n", `no profile is named "cafe"`},
		{"unknown operand", "neg dst.d", "neg dst.x", `operand "dst.x" is not understood`},
		{"unknown label", "jnz again", "jnz agean", `no label "agean"`},
		{"alternatives that don't match", "{shl|shr|sar} dst, 1\n", "{shl|shr} dst, 1\n", "has 2 alternatives, the form has 3"},
		{"step without a header", "    59                       pop rcx\nalu32", "\nalu32.neg  -  none\n    59                       pop rcx\nalu32", "a step without a header"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(string(src), test.old, test.new, 1)
			if bad == string(src) {
				t.Fatalf("x86.txt has no %q any more", test.old)
			}
			line := 1 + strings.Count(bad[:differ(bad, string(src))], "\n")
			file := filepath.Join(t.TempDir(), "x86.txt")
			if err := os.WriteFile(file, []byte(bad), 0o666); err != nil {
				t.Fatal(err)
			}
			d, err := Read("../bpf.txt", file)
			var tables *Tables
			if err == nil {
				tables, err = Build(d)
			}
			if err == nil {
				_, err = tables.Prove()
			}
			switch {
			case err == nil:
				t.Error("accepted")
			case !strings.Contains(err.Error(), test.want):
				t.Errorf("got %q, want %q in it", err, test.want)
			case !strings.Contains(err.Error(), file+":"):
				t.Errorf("got %q, want the file's name in it", err)
			default:
				t.Logf("line %d: %v", line, err)
			}
		})
	}
}

// differ returns where two texts begin to differ.
func differ(a, b string) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
