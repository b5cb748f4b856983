package jit

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// kernelGolden has functions as Linux 6.18 compiled them, each of four lines:
//
//	mov r0,0 (64-bit) -> xor                     what it is about
//	{"StackDepth":8}                             what Function isn't zero in
//	b700000000000000 9500000000000000            its slots
//	0f1f4400000f1f00554889e531c0c9e9........     its code; .. depends on an address
//
// go test -run TestKernelGolden ./jit -update makes it again, of the rows that
// TestGolden has.
const kernelGolden = "testdata/linux-6.18.golden"

// TestKernelGolden compares with what Linux emitted, wherever the tests run.
func TestKernelGolden(t *testing.T) {
	if *golden.Update {
		writeKernelGolden(t)
	}
	text, err := os.ReadFile(kernelGolden)
	if err != nil {
		t.Fatal(err)
	}
	functions := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n\n")
	for _, f := range functions {
		lines := strings.Split(f, "\n")
		if len(lines) != 4 {
			t.Fatalf("not 4 lines: %q", f)
		}
		t.Run(lines[0], func(t *testing.T) {
			fn := new(Function)
			if err := json.Unmarshal([]byte(lines[1]), fn); err != nil {
				t.Fatal(err)
			}
			code, err := Compile(&bpf.Program{Insns: parseProgram(t, lines[2])}, goldenProfile(), fn)
			if err != nil {
				t.Fatal(err)
			}
			if got := masked(fmt.Sprintf("%x", code.Bytes), lines[3]); got != lines[3] {
				t.Errorf("got\n%s, want\n%s", got, lines[3])
			}
		})
	}
	if len(functions) != 289 {
		t.Errorf("%d functions, want 289", len(functions))
	}
}

// masked returns code with dots where want has some.
func masked(code, want string) string {
	b := []byte(code)
	for i := range min(len(b), len(want)) {
		if want[i] == '.' {
			b[i] = '.'
		}
	}
	return string(b)
}

func writeKernelGolden(t *testing.T) {
	var functions []string
	for _, r := range testprog.Golden(t) {
		fn, err := json.Marshal(function(&r))
		if err != nil {
			t.Fatal(err)
		}
		var set map[string]any // but what is zero
		d := json.NewDecoder(strings.NewReader(string(fn)))
		d.UseNumber()
		if err := d.Decode(&set); err != nil {
			t.Fatal(err)
		}
		for name, v := range set {
			if v == false || v == json.Number("0") {
				delete(set, name)
			}
		}
		if fn, err = json.Marshal(set); err != nil {
			t.Fatal(err)
		}
		var slots []string
		for _, in := range r.Insns {
			slots = append(slots, fmt.Sprintf("%x", bpf.Encode([]bpf.Insn{in})))
		}
		var code strings.Builder
		for i, b := range r.Jited {
			if r.Mask[i] == 0 {
				code.WriteString("..")
			} else {
				fmt.Fprintf(&code, "%02x", b)
			}
		}
		functions = append(functions, fmt.Sprintf("%s\n%s\n%s\n%s", r.Desc, fn, strings.Join(slots, " "), &code))
	}
	if err := os.WriteFile(kernelGolden, []byte(strings.Join(functions, "\n\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
