package jit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/lower"
)

// listing writes bytecode and code one below the other.
func listing(p *bpf.Program, code *Code) string {
	var b strings.Builder
	for _, f := range code.Funcs {
		fmt.Fprintf(&b, "function at slot %d, passes %v\n", f.Start, f.Passes)
		from := f.Entry
		dump := func(to uint32) {
			for from < to {
				inst, err := x86asm.Decode(code.Bytes[from:to], 64)
				text := x86asm.IntelSyntax(inst, 0, nil)
				if err != nil {
					inst.Len, text = 1, err.Error()
				}
				fmt.Fprintf(&b, "%6x:  %-30x %s\n", from, code.Bytes[from:from+uint32(inst.Len)], text)
				from += uint32(inst.Len)
			}
		}
		dump(f.Body)
		for i := f.Start; i < f.End; i++ {
			mark := ""
			if p.Flag(i)&bpf.Inserted != 0 {
				mark = " (inserted)"
			}
			fmt.Fprintf(&b, "%d: %s%s\n", i, bpf.Text(p.Insns[i]), mark)
			dump(code.Ends[i])
		}
		if f.Cold < f.Limit {
			b.WriteString("behind the function:\n")
			dump(f.Limit)
		}
	}
	return b.String()
}

// TestListings compares small programs with the listings in testdata, which
// people can read. go test -run Listings ./jit -update rewrites them.
func TestListings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bpf")
	if err != nil || len(files) == 0 {
		t.Fatal("no programs in testdata", err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := &bpf.Program{Insns: parseProgram(t, string(src))}
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		var got strings.Builder
		for _, profile := range []string{"kernel", "v5.13", "cage"} {
			fmt.Fprintf(&got, "-- %s --\n", profile)
			var code *Code
			q := p
			switch profile {
			case "kernel":
				code, err = Compile(p, &Linux618, new(Function))
			case "v5.13":
				code, err = Compile(p, &Linux513, new(Function))
			case "cage":
				if q, err = lower.Lower(p); err != nil {
					t.Fatal(err)
				}
				code, err = CompileCage(q, &Cage)
			}
			if err != nil {
				fmt.Fprintf(&got, "error: %v\n", err)
				continue
			}
			got.WriteString(listing(q, code))
		}
		golden.Compare(t, strings.TrimSuffix(file, ".bpf")+".x86", got.String())
	}
}

// parseProgram reads hex slots, one a line, '#' starts a comment.
func parseProgram(t *testing.T, src string) []bpf.Insn {
	var hex strings.Builder
	for line := range strings.Lines(src) {
		line, _, _ = strings.Cut(line, "#")
		hex.WriteString(strings.Join(strings.Fields(line), ""))
	}
	insns, err := bpf.Decode(unhex(t, hex.String()))
	if err != nil {
		t.Fatal(err)
	}
	return insns
}
