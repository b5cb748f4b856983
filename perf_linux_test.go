package bpfjit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
)

// perfPaths are the files of this process.
func perfPaths(t *testing.T) (maps, dump string) {
	maps, dump = fmt.Sprintf("/tmp/perf-%d.map", os.Getpid()), fmt.Sprintf("/tmp/jit-%d.dump", os.Getpid())
	t.Cleanup(func() {
		os.Remove(maps)
		os.Remove(dump)
	})
	return maps, dump
}

// loaded is what a dump has of a function.
type loaded struct {
	name  string
	code  []byte
	lines []string // by offset in the code
}

// readDump reads the functions of a dump by their addresses. Package perf tests
// the format itself.
func readDump(t *testing.T, path string) map[uint64]loaded {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u32 := func(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
	u64 := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
	funcs := map[uint64]loaded{}
	lines := map[uint64]string{}
	for b = b[u32(b[8:]):]; len(b) > 0; b = b[u32(b[4:]):] {
		record := b[16:u32(b[4:])]
		switch u32(b) {
		case 2:
			n := u64(record[8:])
			for record = record[16:]; n > 0; n-- {
				name, rest, _ := bytes.Cut(record[16:], []byte{0})
				lines[u64(record)] = fmt.Sprintf("%s:%d", name, u32(record[8:]))
				record = rest
			}
		case 0:
			name, code, _ := bytes.Cut(record[40:], []byte{0})
			f := loaded{name: string(name), code: code, lines: make([]string, len(code))}
			at := ""
			for i := range code {
				if l := lines[u64(record[8:])+uint64(i)]; l != "" {
					at = l
				}
				f.lines[i] = at
			}
			clear(lines)
			funcs[u64(record[8:])] = f
		}
	}
	return funcs
}

// TestPerf: perf(1) is told names, addresses, bytes and lines of all functions,
// blinded or not, and of programs one after the other.
func TestPerf(t *testing.T) {
	needJIT(t)
	maps, dumped := perfPaths(t)
	known := 0
	for _, blinding := range []bool{false, true} {
		var raw bytes.Buffer
		p, err := bpfjit.Load(spec(t, "cmd/bpfjit/example/filter.bpf.o"), "filter", &bpfjit.Options{
			Perf: bpfjit.PerfMap | bpfjit.PerfDump, Dump: &raw, Blinding: blinding,
		})
		if err != nil {
			t.Fatal(err)
		}
		if p.Info().Perf != nil {
			t.Fatal(p.Info().Perf)
		}
		var base uint64
		_, image, _ := strings.Cut(raw.String(), "image=")
		if _, err := fmt.Sscanf(image, "%x", &base); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(maps)
		if err != nil {
			t.Fatal(err)
		}
		entries := strings.Split(strings.TrimSpace(string(text)), "\n")[known:]
		known += len(entries)
		listing, code := p.Listing(), p.Code()
		funcs := readDump(t, dumped)
		var names []string
		for _, entry := range entries {
			var addr, size uint64
			var name string
			if _, err := fmt.Sscanf(entry, "%x %x %s", &addr, &size, &name); err != nil {
				t.Fatalf("%q: %v", entry, err)
			}
			names = append(names, name)
			f := funcs[addr]
			at := addr - base
			if f.name != name || !bytes.Equal(f.code, code[at:at+size]) {
				t.Errorf("%s at %#x: the dump has %q, % x", name, addr, f.name, f.code)
				continue
			}
			for i := range f.code {
				slot := listing.Code.Slot(uint32(at) + uint32(i))
				if slot < 0 {
					continue // in front of the first one
				}
				l := p.Source().Line(listing.Program.Source(slot))
				if want := fmt.Sprintf("%s:%d", l.File, l.Number); l.Number != 0 && f.lines[i] != want {
					t.Errorf("%s+%#x is %s, want %s", name, i, f.lines[i], want)
				}
			}
		}
		want := []string{"bpf_prog_filter"}
		for _, f := range listing.Code.Funcs[1:] {
			want = append(want, "bpf_prog_filter."+p.Source().FuncName(listing.Program.Source(f.Start)))
		}
		if d := cmp.Diff(want, names); d != "" || len(want) < 2 {
			t.Errorf("(-want +got):\n%s", d)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPerfNames: programs without names in their source.
func TestPerfNames(t *testing.T) {
	needJIT(t)
	maps, _ := perfPaths(t)
	program(t, bpfjit.EngineJIT, "call pc+1\nexit\nr0 = 1\nexit", func(o *bpfjit.Options) { o.Name, o.Perf = "my program", bpfjit.PerfMap })
	b, err := os.ReadFile(maps)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" bpf_prog_my_program\n", " bpf_prog_my_program.2\n"} {
		if !strings.HasSuffix(string(b), want) && !strings.Contains(string(b), want) {
			t.Errorf("no %q in %q", want, b)
		}
	}
}

// TestPerfRefused: what can't be written doesn't stop a program, and Info says
// why.
func TestPerfRefused(t *testing.T) {
	needJIT(t)
	maps, _ := perfPaths(t)
	os.Remove(maps)
	if err := os.MkdirAll(maps+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(maps)
	p := program(t, bpfjit.EngineJIT, "r0 = 1\nexit", func(o *bpfjit.Options) { o.Perf = bpfjit.PerfMap })
	var path *os.PathError
	if err := p.Info().Perf; !errors.As(err, &path) || path.Path != maps {
		t.Errorf("%v", err)
	}
	if r0, err := p.Run(nil); r0 != 1 || err != nil {
		t.Errorf("%d, %v", r0, err)
	}
}
