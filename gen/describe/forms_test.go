package describe

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestParseForms(t *testing.T) {
	f, err := os.Open("../bpf.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	forms, err := ParseForms("bpf.txt", f)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range forms {
		if f.Number != i+1 {
			t.Errorf("%s has number %d, want %d", f.Name, f.Number, i+1)
		}
	}
	byName := map[string]*Form{}
	for _, f := range forms {
		byName[f.Name] = f
	}
	for _, tt := range []struct {
		name, goName string
		mask, value  uint64
	}{
		{"alu64.add.k", "FormAlu64AddK", 0x00000000_ffff_f0ff, 0x07},
		{"alu64.sdiv.x", "FormAlu64SdivX", 0xffffffff_ffff_00ff, 0x1_00_3f},
		{"alu64.percpu", "FormAlu64Percpu", 0xffffffff_ffff_00ff, 0xffff_00_bf},
		{"jmp.call_local", "FormJmpCallLocal", 0xffff, 0x1085},
		{"atomic32.cmpxchg", "FormAtomic32Cmpxchg", 0xffffffff_0000_00ff, 0xf1_0000_00c3},
	} {
		f := byName[tt.name]
		if f == nil {
			t.Errorf("no form %s", tt.name)
			continue
		}
		if m, v := f.Match(); m != tt.mask || v != tt.value || f.GoName() != tt.goName {
			t.Errorf("%s: %s %#x/%#x, want %s %#x/%#x", tt.name, f.GoName(), v, m, tt.goName, tt.value, tt.mask)
		}
	}
}

// TestParseFormsErrors shows each reason for which a line is rejected.
func TestParseFormsErrors(t *testing.T) {
	const good = "07 alu64.add.k rw - - k - base64 yes yes alu64 {dst} += {imm}\n"
	for _, tt := range []struct{ lines, want string }{
		{"07 alu64.add.k rw - - k", "f:1: want 12 columns"},
		{"7 a rw - - k - base64 yes yes - x", `f:1: opcode "7" isn't two hex digits`},
		{"zz a rw - - k - base64 yes yes - x", `f:1: opcode "zz" isn't two hex digits`},
		{"07 Add rw - - k - base64 yes yes - x", `"Add" isn't a name`},
		{"07 a m - - k - base64 yes yes - x", `dst is "m", not one of - r w rw a number`},
		{"07 a 16 - - k - base64 yes yes - x", "dst is 16, which 4 bits don't hold"},
		{"07 a rw - 32768 k - base64 yes yes - x", "off is 32768, which 16 bits don't hold"},
		{"07 a rw - - 0x100000000 - base64 yes yes - x", "imm is 0x100000000, which 32 bits don't hold"},
		{"07 a rw - - k skip base64 yes yes - x", `flow is "skip", not one of`},
		{"07 a rw - - k - base16 yes yes - x", `group is "base16", not one of`},
		{"07 a rw - - k - base64 maybe yes - x", `source is "maybe", not one of`},
		{"07 a rw - - k - base64 yes maybe - x", `transl is "maybe", not one of`},
		{"07 a rw - - k - base64 yes yes add x", `blind is "add", not one of`},
		{"07 a rw - - k - base64 yes yes - {dts}", "text has {dts}, which isn't a placeholder"},
		{"07 a rw - - k - base64 yes yes - {dst", "text has {dst, which isn't a placeholder"},
		{"05 a - - j j jump base64 yes yes - x", "two fields hold a distance"},
		{"05 a - - - - branch base64 yes yes - x", "a branch needs a distance"},
		{"61 a a a m - - base64 yes yes - x", "two registers hold the address"},
		{"61 a w a - - - base64 yes yes - x", "an address needs a displacement"},
		{"61 a w r m - - base64 yes yes - x", "an address needs a displacement"},
		{"0f a rw r - - - base64 yes yes alu64 x", `rule alu64 blinds imm, which holds "-"`},
		{"62 a a - m k - base64 yes yes alu64 x", "rule alu64 is not for class 2"},
		{"07 a rw - - k - base64 yes yes store x", "rule store is not for class 7"},
		{good + good, "f:2: alu64.add.k stands in line 1 already"},
		{good + strings.Replace(good, "add.k", "add_k", 1), "f:2: alu64.add_k and alu64.add.k of line 1 are both FormAlu64AddK"},
		{good + strings.Replace(good, "add", "sub", 1), "f:2: no number tells alu64.sub.k from alu64.add.k of line 1"},
		{"# c\n\n" + good + "07 b rw - 1 k - base64 yes yes - x", "f:3: off is - here, but selects b in line 4: write 0"},
	} {
		_, err := ParseForms("f", strings.NewReader(tt.lines))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.lines, err, tt.want)
		}
	}
}

// TestSelect looks up every form by its own slot and by every value of the
// field that selects.
func TestSelect(t *testing.T) {
	lines := strings.TrimSpace(`
bf a w r 0 0 - - yes yes - x
bf b w r 8 0 - - yes yes - x
bf c w r -1 0 - - yes yes - x
bf d w r 1 0x10000 - - yes yes - x
bf e w r 1 1 - - yes yes - x`)
	forms, err := ParseForms("f", strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	s, next, err := Select(forms)
	if err != nil {
		t.Fatal(err)
	}
	if next[forms[3]] != forms[4] || len(next) != 1 {
		t.Errorf("next = %v, want d -> e only", next)
	}
	for _, f := range forms[:4] {
		if _, v := f.Match(); s.Heads[s.Key(v)] != f {
			t.Errorf("%s isn't at its key", f.Name)
		}
	}
	for w := range uint64(1 << 16) {
		if k := s.Key(w << 16); k >= len(s.Heads) {
			t.Fatalf("key %d of off %d is outside of %d heads", k, w, len(s.Heads))
		}
	}
}
