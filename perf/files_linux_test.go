package perf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var two = []Func{
	{Name: "bpf_prog_count", Addr: 0x7f1234567000, Code: []byte{0x31, 0xc0, 0xc3}, Lines: []Line{
		{0, "count.bpf.c", 10}, {2, "count.bpf.c", 12}, {2, "lib/a b.h", 1},
	}},
	{Name: "bpf prog\nx", Addr: 0x7f1234567040, Code: []byte{0xc3}},
}

// dump is what is read from a file.
type dump struct {
	Pid    uint32
	Funcs  []Func
	Closed bool
}

// readDump reads a file after the specification, independent of what writes
// them.
func readDump(t *testing.T, path string) (d dump) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u32 := func(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
	u64 := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
	if len(b) < 4096 || !bytes.Equal(b[:12], []byte("DTiJ\x01\x00\x00\x00\x28\x00\x00\x00")) || u32(b[12:]) != 62 || u64(b[32:]) != 0 {
		t.Fatalf("%s: header % x", path, b[:min(len(b), 40)])
	}
	d.Pid = u32(b[20:])
	last := u64(b[24:])
	// What is executable is the header, int3, and little else.
	for i, c := range b[40+16+16 : 4096] {
		if c != 0xcc {
			t.Fatalf("%s: %#x at %d", path, c, 40+16+16+i)
		}
	}
	text := func(b *[]byte) string {
		s, rest, ok := bytes.Cut(*b, []byte{0})
		if !ok {
			t.Fatalf("%s: no end of a name", path)
		}
		*b = rest
		return string(s)
	}
	lines := map[uint64][]Line{}
	for b = b[40:]; len(b) > 0; {
		if d.Closed {
			t.Fatalf("%s: something behind its end", path)
		}
		if len(b) < 16 || uint32(len(b)) < u32(b[4:]) {
			t.Fatalf("%s: a record is cut short", path)
		}
		kind, time := u32(b), u64(b[8:])
		record := b[16:u32(b[4:])]
		b = b[u32(b[4:]):]
		if time < last {
			t.Errorf("%s: time goes back from %d to %d", path, last, time)
		}
		last = time
		switch kind {
		case 0:
			vma, addr, size := u64(record[8:]), u64(record[16:]), u64(record[24:])
			if u32(record) != d.Pid || u32(record[4:]) == 0 || vma != addr || u64(record[32:]) != uint64(len(d.Funcs)) {
				t.Errorf("%s: load record % x", path, record)
			}
			record = record[40:]
			f := Func{Name: text(&record), Addr: addr, Code: record, Lines: lines[addr]}
			if uint64(len(record)) != size {
				t.Errorf("%s: %d bytes of code, want %d", path, len(record), size)
			}
			delete(lines, addr)
			d.Funcs = append(d.Funcs, f)
		case 2:
			addr, n := u64(record), u64(record[8:])
			record = record[16:]
			if n == 0 {
				continue
			}
			var list []Line
			for range n {
				l := Line{Offset: int(u64(record) - addr), Number: int(u32(record[8:]))}
				record = record[16:]
				l.File = text(&record)
				list = append(list, l)
			}
			if len(record) != 0 {
				t.Errorf("%s: %d bytes behind the lines", path, len(record))
			}
			lines[addr] = list
		case 3:
			d.Closed = true
		default:
			t.Errorf("%s: record of kind %d", path, kind)
		}
	}
	if len(lines) > 0 {
		t.Errorf("%s: lines of no function: %v", path, lines)
	}
	return d
}

// readMap reads a map.
func readMap(t *testing.T, path string) (funcs []Func) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var f Func
		var size int
		if n, err := fmt.Sscanf(line, "%x %x %s\n", &f.Addr, &size, &f.Name); n != 3 || err != nil {
			t.Errorf("%s: %q: %v", path, line, err)
		}
		f.Code = make([]byte, size)
		funcs = append(funcs, f)
	}
	return funcs
}

func paths(d *directory) (maps, dump string) {
	return filepath.Join(d.path, fmt.Sprintf("perf-%d.map", os.Getpid())), filepath.Join(d.path, fmt.Sprintf("jit-%d.dump", os.Getpid()))
}

// cleaned are functions as they come out of a file.
func cleaned(funcs []Func, withCode bool) (out []Func) {
	for _, f := range funcs {
		f.Name = clean(f.Name)
		if !withCode {
			f.Code, f.Lines = make([]byte, len(f.Code)), nil
		}
		var lines []Line
		for _, l := range f.Lines {
			l.File = clean(l.File)
			lines = append(lines, l)
		}
		f.Lines = lines
		out = append(out, f)
	}
	return out
}

func open(t *testing.T, d *directory, files Files) *Log {
	t.Helper()
	l, err := d.open(files)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func check(t *testing.T, d *directory, files Files, want []Func, end bool) {
	t.Helper()
	maps, dumped := paths(d)
	for bit, path := range []string{maps, dumped} {
		if files>>bit&1 == 0 {
			continue
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if files&Map != 0 {
		if diff := cmp.Diff(cleaned(want, false), readMap(t, maps)); diff != "" {
			t.Errorf("map (-want +got):\n%s", diff)
		}
	}
	if files&Dump != 0 {
		want := dump{Pid: uint32(os.Getpid()), Funcs: cleaned(want, true), Closed: end}
		if diff := cmp.Diff(want, readDump(t, dumped)); diff != "" {
			t.Errorf("dump (-want +got):\n%s", diff)
		}
		if mapped := executable(t, dumped); mapped == end {
			t.Errorf("the dump is mapped: %v", mapped)
		}
	}
}

// executable tells whether a file has a mapping that perf would look at, and
// that it is not writable.
func executable(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(strings.TrimSpace(line), path) {
			if protection := strings.Fields(line)[1]; protection != "r-xp" {
				t.Errorf("the dump is mapped %s", protection)
			}
			return true
		}
	}
	return false
}

// TestWrite reads back what was written, in all ways in which users can come
// and go.
func TestWrite(t *testing.T) {
	for _, files := range []Files{Map, Dump, Map | Dump} {
		t.Run(files.String(), func(t *testing.T) {
			d := &directory{path: t.TempDir()}
			maps, dumped := paths(d)
			for _, path := range []string{maps, dumped} { // of another process
				if files == Map|Dump {
					if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			a := open(t, d, files)
			check(t, d, files, nil, false)
			if err := a.Add(two); err != nil {
				t.Error(err)
			}
			b := open(t, d, files)
			if err := b.Add(two[:1]); err != nil {
				t.Error(err)
			}
			closed(t, a)
			closed(t, a)
			want := append(append([]Func(nil), two...), two[0])
			check(t, d, files, want, false)
			closed(t, b)
			check(t, d, files, want, true)
			c := open(t, d, files)
			check(t, d, files, want, false)
			if err := c.Add(two[1:]); err != nil {
				t.Error(err)
			}
			closed(t, c)
			check(t, d, files, append(want, two[1]), true)

			for _, path := range []string{maps, dumped} { // tidied up
				os.Remove(path)
			}
			e := open(t, d, files)
			if files == Map { // the numbers of records go on
				if err := e.Add(two); err != nil {
					t.Error(err)
				}
				check(t, d, files, two, false)
			}
			closed(t, e)
		})
	}
}

// TestMixed: users of one kind and of the other.
func TestMixed(t *testing.T) {
	d := &directory{path: t.TempDir()}
	m, j := open(t, d, Map), open(t, d, Dump)
	if err := errors.Join(m.Add(two[:1]), j.Add(two[1:])); err != nil {
		t.Error(err)
	}
	check(t, d, Map, two[:1], false)
	closed(t, m)
	check(t, d, Dump, two[1:], false)
	closed(t, j)
	check(t, d, Dump, two[1:], true)
}

// TestMany adds from several goroutines: records are whole.
func TestMany(t *testing.T) {
	d := &directory{path: t.TempDir()}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := d.open(Map | Dump)
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.Add([]Func{{Name: fmt.Sprint("f", n), Addr: uint64(n) << 12, Code: []byte{byte(n)}}}); err != nil {
					t.Error(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	maps, dumped := paths(d)
	list := readDump(t, dumped).Funcs
	if got := readMap(t, maps); len(got) != 400 || len(list) != 400 {
		t.Errorf("%d and %d functions", len(got), len(list))
	}
	for _, f := range list {
		if n := f.Addr >> 12; f.Name != fmt.Sprint("f", n) || len(f.Code) != 1 || f.Code[0] != byte(n) {
			t.Errorf("%+v", f)
		}
	}
}

// TestErrors: what can't be made is an error, and no file of somebody else is
// touched.
func TestErrors(t *testing.T) {
	for _, files := range []Files{Map, Dump} {
		gone := &directory{path: filepath.Join(t.TempDir(), "gone")}
		if _, err := gone.open(files); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v in no directory: %v", files, err)
		}
		d := &directory{path: t.TempDir()}
		maps, dumped := paths(d)
		path := map[Files]string{Map: maps, Dump: dumped}[files]
		if err := os.MkdirAll(filepath.Join(path, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := d.open(files); err == nil {
			t.Errorf("%v in the place of a directory", files)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		victim := filepath.Join(d.path, "victim")
		if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
		l := open(t, d, files)
		if err := l.Add(two); err != nil {
			t.Error(err)
		}
		closed(t, l)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
		if l, err := d.open(files); err == nil {
			closed(t, l)
		}
		if b, err := os.ReadFile(victim); string(b) != "mine" {
			t.Errorf("%v: somebody else's file is %q, %v", files, b, err)
		}
	}
	// If the second of two can't be made, the first has no user.
	d := &directory{path: t.TempDir()}
	_, dumped := paths(d)
	if err := os.MkdirAll(filepath.Join(dumped, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.open(Map | Dump); err == nil || d.users != [2]int{} {
		t.Errorf("%v, users %v", err, d.users)
	}
}

// TestFull: a record that doesn't fit is left out as a whole.
func TestFull(t *testing.T) {
	d := &directory{path: t.TempDir()}
	l := open(t, d, Dump)
	if err := l.Add(two); err != nil {
		t.Error(err)
	}
	_, dumped := paths(d)
	size := func() int64 {
		info, err := os.Stat(dumped)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	s := d.sinks[1].(*dumpFile)
	writable := s.file
	readOnly, err := os.Open(dumped)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	s.file = readOnly
	if err := l.Add(two); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
	s.file = writable
	if size() != before {
		t.Errorf("%d bytes became %d", before, size())
	}
	if err := l.Add(two); err != nil {
		t.Error(err)
	}
	closed(t, l)
	check(t, d, Dump, append(append([]Func(nil), two...), two...), true)
}
