package helpers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/interp"
	"github.com/bpfjit/bpfjit/maps"
)

// world is a run's surroundings.
type world struct {
	space *cage.Space
	inst  *cage.Instance
	maps  *maps.Set
	env   *Env
	lines []string // printed
}

func newWorld(t testing.TB, mem string) *world {
	t.Helper()
	w := &world{space: new(cage.Space)}
	var err error
	if w.inst, err = w.space.NewInstance(cage.Plain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.inst.Close()
		w.space.Close()
	})
	if err := w.inst.LoadMem([]byte(mem)); err != nil {
		t.Fatal(err)
	}
	w.maps = maps.NewSet(w.space)
	w.env = &Env{Memory: w.inst, Maps: w.maps, Printer: func(s string) { w.lines = append(w.lines, s) }}
	return w
}

func (w *world) newMap(t testing.TB, spec maps.Spec) (maps.Map, uint64) {
	t.Helper()
	m, handle, err := w.maps.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return m, handle
}

// call calls a standard helper.
func (w *world) call(number uint32, r ...uint64) (uint64, error) {
	var a [5]uint64
	copy(a[:], r)
	return Standard().Lookup(number)(w.env, a[0], a[1], a[2], a[3], a[4])
}

func TestMapHelpers(t *testing.T) {
	const mem = abi.MemBase
	w := newWorld(t, "\x01\x00\x00\x00value678")
	m, handle := w.newMap(t, maps.Spec{Type: maps.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	_, constant := w.newMap(t, maps.Spec{Type: maps.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2, Flags: maps.FlagReadOnlyProg})
	addr, _ := m.Lookup([]byte{1, 0, 0, 0})
	for _, c := range []struct {
		name   string
		number uint32
		args   []uint64
		want   uint64
		fault  bool
	}{
		{"lookup", MapLookupElem, []uint64{handle, mem}, addr, false},
		{"lookup of no entry", MapLookupElem, []uint64{handle, mem + 4}, 0, false},
		{"update", MapUpdateElem, []uint64{handle, mem, mem + 4, 0}, 0, false},
		{"update of no entry", MapUpdateElem, []uint64{handle, mem + 4, mem + 4, 0}, abi.E2BIG.R0(), false},
		{"update with noexist", MapUpdateElem, []uint64{handle, mem, mem + 4, 1}, abi.EEXIST.R0(), false},
		{"update with wrong flags", MapUpdateElem, []uint64{handle, mem, mem + 4, 9}, abi.EINVAL.R0(), false},
		{"delete", MapDeleteElem, []uint64{handle, mem}, abi.EINVAL.R0(), false},
		{"lookup of a constant", MapLookupElem, []uint64{constant, mem}, addr + abi.PageSize, false},
		{"update of a constant", MapUpdateElem, []uint64{constant, mem, mem, 0}, abi.EPERM.R0(), false},
		{"delete of a constant", MapDeleteElem, []uint64{constant, mem}, abi.EPERM.R0(), false},
		{"no map", MapLookupElem, []uint64{0, mem}, 0, true},
		{"nearly a map", MapUpdateElem, []uint64{handle + 1, mem, mem}, 0, true},
		{"a function", MapDeleteElem, []uint64{abi.FuncHandle(0), mem}, 0, true},
		{"map that isn't there", MapDeleteElem, []uint64{abi.MapHandle(2), mem}, 0, true},
		{"null key", MapLookupElem, []uint64{handle, 0}, 0, true},
		{"key across the edge", MapLookupElem, []uint64{handle, mem + 4093}, 0, true},
		{"value across the edge", MapUpdateElem, []uint64{handle, mem, mem + 4090}, 0, true},
		{"handle as key", MapDeleteElem, []uint64{handle, handle}, 0, true},
	} {
		got, err := w.call(c.number, c.args...)
		if got != c.want || errors.Is(err, abi.ErrFault) != c.fault || (err != nil) != c.fault {
			t.Errorf("%s: %#x, %v; want %#x, fault: %v", c.name, got, err, c.want, c.fault)
		}
	}
	if v := m.Value([]byte{1, 0, 0, 0}); string(v) != "value678" {
		t.Errorf("the value is %q", v)
	}
}

func TestOthers(t *testing.T) {
	w := newWorld(t, "")
	w.env.Clock = func() uint64 { return 123 }
	w.env.Rand = func() uint32 { return 0xfedcba98 }
	w.env.Processor = 3
	for number, want := range map[uint32]uint64{KtimeGetNs: 123, GetPrandomU32: 0xfedcba98, GetSmpProcessorID: 3} {
		if got, err := w.call(number); got != want || err != nil {
			t.Errorf("helper %d: %d, %v, want %d", number, got, err, want)
		}
	}
}

// TestEnvZero: the zero Env has a clock and randomness, and nothing else.
func TestEnvZero(t *testing.T) {
	w := &world{env: &Env{}}
	first, err := w.call(KtimeGetNs)
	if err != nil || first == 0 {
		t.Errorf("it is %d, %v", first, err)
	}
	if second, _ := w.call(KtimeGetNs); second < first {
		t.Errorf("the clock went from %d back to %d", first, second)
	}
	var bits uint64
	for range 64 {
		n, _ := w.call(GetPrandomU32)
		bits |= n
	}
	if bits != 1<<32-1 {
		t.Errorf("64 random numbers have the bits %#x only", bits)
	}
	if _, err := w.call(MapLookupElem, abi.MapHandle(0), abi.MemBase); !errors.Is(err, abi.ErrFault) {
		t.Error(err)
	}
	if _, err := w.call(TracePrintk, abi.MemBase, 8); !errors.Is(err, abi.ErrFault) {
		t.Error(err)
	}
	w.env.Print("to nobody")
}

func TestTable(t *testing.T) {
	own := func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 42, nil }
	table := Standard()
	other := Standard()
	for _, number := range []uint32{0, KtimeGetNs, 255, 256, 1 << 31, 1<<32 - 1} {
		table.Set(number, own)
	}
	clone := table.Clone()
	for _, number := range []uint32{255, 256} {
		table.Set(number, nil)
		if table.Lookup(number) != nil || clone.Lookup(number) == nil || other.Lookup(number) != nil {
			t.Errorf("helper %d: a table is not on its own", number)
		}
	}
	if f := table.Lookup(1<<32 - 1); f == nil {
		t.Error("no own helper")
	} else if n, _ := f(nil, 0, 0, 0, 0, 0); n != 42 {
		t.Error("not the own helper")
	}
	if f := other.Lookup(KtimeGetNs); f == nil {
		t.Error("no standard helper")
	} else if n, _ := f(&Env{Clock: func() uint64 { return 1 }}, 0, 0, 0, 0, 0); n != 1 {
		t.Error("another table's helper")
	}
	if new(Table).Lookup(1) != nil || new(Table).Lookup(1<<20) != nil {
		t.Error("the zero table has helpers")
	}
}

// TestProgram runs a program that counts in a map.
func TestProgram(t *testing.T) {
	w := newWorld(t, "counted\x00 %d\n\x00")
	m, handle := w.newMap(t, maps.Spec{Type: maps.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	insns, err := bpf.Parse(fmt.Sprintf(`
		r6 = r1
		*(u32 *)(r10 - 4) = 3
		r1 = %d ll
		r2 = r10
		r2 += -4
		call 1
		if r0 == 0 goto +3
		r3 = 1
		r3 = atomic_fetch_add((u64 *)(r0 + 0), r3)
		*(u64 *)(r10 - 16) = r3
		r1 = r6
		r1 += 8
		r2 = 5
		r3 = *(u64 *)(r10 - 16)
		call 6
		exit`, handle))
	if err != nil {
		t.Fatal(err)
	}
	prog, err := interp.Prepare(&bpf.Program{Insns: insns})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &interp.Config{R1: abi.MemBase, Helper: Standard().Lookup, Env: w.env}
	for range 3 {
		if got := prog.Run(w.inst, cfg); got.Cause() != nil || got.R0 != 3 {
			t.Errorf("%+v", got)
		}
	}
	if v := binary.LittleEndian.Uint64(m.Value([]byte{3, 0, 0, 0})); v != 3 {
		t.Errorf("it counted to %d", v)
	}
	if d := cmp.Diff([]string{" 0", " 1", " 2"}, w.lines); d != "" {
		t.Error(d)
	}
}

func TestHelperAllocs(t *testing.T) {
	w := newWorld(t, "\x01\x00\x00\x00value678")
	_, handle := w.newMap(t, maps.Spec{Type: maps.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	table := Standard()
	for _, number := range []uint32{MapLookupElem, MapUpdateElem, MapDeleteElem, KtimeGetNs, GetPrandomU32, GetSmpProcessorID} {
		f := table.Lookup(number)
		if n := testprog.Allocations(100, func() {
			if _, err := f(w.env, handle, abi.MemBase, abi.MemBase+4, 0, 0); err != nil {
				panic(err)
			}
		}); n != 0 {
			t.Errorf("helper %d: %v allocations", number, n)
		}
	}
}

// printk calls trace_printk with a format, a string at abi.MemBase+1000, and
// returns what it gave and printed.
func (w *world) printk(format string, args ...uint64) (int64, string) {
	b, err := w.inst.Bytes(abi.MemBase, uint64(len(format)))
	if err != nil {
		panic(err)
	}
	copy(b, format)
	w.lines = nil
	r := append([]uint64{abi.MemBase, uint64(len(format))}, args...)
	n, err := w.call(TracePrintk, r...)
	if err != nil {
		panic(err)
	}
	return int64(n), strings.Join(w.lines, "//")
}

// hello is where the tests of trace_printk have a string.
const hello = abi.MemBase + 2000

// TestPrintk: what Linux 6.18 printed, but for pointers.
func TestPrintk(t *testing.T) {
	a := []uint64{0x123456789abcdef0, 0xffffffffffffffff, 7}
	s := []uint64{hello, hello, hello}
	const einval, enospc = -22, -28
	for _, c := range []struct {
		format string
		args   []uint64
		n      int64
		text   string
	}{
		{"", nil, 0, ""},
		{"hi", nil, 2, "hi"},
		{"hi\n", nil, 3, "hi"},
		{"abc\x00\x00", nil, 3, "abc"},
		{"a\rb\t\v\f", nil, 6, "a\rb\t\v\f"},
		{"\x80", nil, 1, "\x80"},
		{"\x01", nil, einval, ""},
		{"\x7f", nil, einval, ""},
		{"%%", nil, 1, "%"},
		{"%", nil, einval, ""},
		{"%d %d %d", a, 16, "-1698898192 -1 7"},
		{"%d %d %d %d", a, einval, ""},
		{"%p%p%p%%", []uint64{1, 2, 3}, 49, "000000000000000100000000000000020000000000000003%"},
		{"%lx %lu %ld", a, 39, "123456789abcdef0 18446744073709551615 7"},
		{"%llx %llu %lld", a, 39, "123456789abcdef0 18446744073709551615 7"},
		{"%x %u %i", a, 21, "9abcdef0 4294967295 7"},
		{"%X %lX", []uint64{0xabcdef, 0xabcdef0123}, 17, "ABCDEF ABCDEF0123"},
		{"%5d|%-5d|%05d", a, 23, "-1698898192|-1   |00007"},
		{"%+ld|%+d|% d", []uint64{5, 1<<64 - 5, 5}, 8, "+5|-5| 5"},
		{"%05d|%05d|%+05d", []uint64{0xffffffff, 12, 12}, 17, "-0001|00012|+0012"},
		{"% 05d|%-+5ld|%0-5ld|", []uint64{12, 34, 56}, 18, " 0012|+34  |56   |"},
		{"%+x% u", []uint64{10, 10}, 3, "a10"},
		{"%da", []uint64{1}, 2, "1a"},
		{"%2147483648d|%4294967200d|", []uint64{1, 2}, 4, "1|2|"},
		{"%4294967301d|", []uint64{1}, 6, "    1|"},
		{"%c%c|%3c", []uint64{'A', 'B', 0x143}, 6, "AB|  C"},
		{"%-3c|%03c|", []uint64{'A', 'B'}, 8, "A  |  B|"},
		{"%c|%s", []uint64{0, hello}, 7, ""},
		{"%s %s %s", s, 17, "hello hello hello"},
		{"%10s|%-10s|%3s|", s, 28, "     hello|hello     |hello|"},
		{"%010s|%s%d", []uint64{hello, hello, 7}, 17, "     hello|hello7"},
		{"%s|", []uint64{0}, 1, "|"},
		{"%sa", s, einval, ""},
		{"%s\x80", s, einval, ""},
		{"%s_%pks%pus", s, 16, "hello_hellohello"},
		{"%20pks|", s, 6, "hello|"},
		{"%p|%20p|%-20p|", []uint64{0, 0, 0}, 59, "0000000000000000|                   0|0                   |"},
		{"%px|%20px|%020px|", []uint64{a[0], a[0], a[0]}, 59, "123456789abcdef0|    123456789abcdef0|0000123456789abcdef0|"},
		{"%pKx", a, 16, "123456789abcdef0"},
		{"%p_%p\n", []uint64{1, 2}, 34, "0000000000000001_0000000000000002"},
		{"%pB%d", a, 20, "0x123456789abcdef0-1"},
		{"%30pS|", a, 31, "            0x123456789abcdef0|"},
		{"%pi4 %pI4", s, 31, "104.101.108.108 104.101.108.108"},
		{"%20pI4|", []uint64{hello + 8}, 10, "192.0.2.1|"},
		{"%pi4", []uint64{hello + 8}, 15, "192.000.002.001"},
		{"%pI4", []uint64{0}, 7, "0.0.0.0"},
		{"%pi6", s, 32, "68656c6c6f000000c000020100000000"},
		{"%pI6c%d", []uint64{hello, 7}, 40, "6865:6c6c:6f00:0000:c000:0201:0000:00007"},
		{"%p5", a, einval, ""}, {"%pk", a, einval, ""}, {"%pi", a, einval, ""}, {"%pi5", a, einval, ""}, {"%pd", a, einval, ""},
		{"%p\x80", a, einval, ""}, {"%pks5", s, einval, ""}, {"%l", a, einval, ""}, {"%ll", a, einval, ""}, {"%ls", s, einval, ""},
		{"%o", a, einval, ""}, {"%hd", a, einval, ""}, {"%zd", a, einval, ""}, {"%.3d", a, einval, ""}, {"%*d", a, einval, ""},
		{"%#x", a, einval, ""}, {"%-", a, einval, ""}, {"%5", a, einval, ""}, {"%5%", a, einval, ""}, {"%llld", a, einval, ""},
		{"%n", a, einval, ""}, {"%e", a, einval, ""}, {"%Ld", a, einval, ""}, {"% \n", a, einval, ""},
	} {
		w := newWorld(t, strings.Repeat("\x00", 4096))
		b, err := w.inst.Bytes(hello, 16)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, "hello\x00\x00\x00\xc0\x00\x02\x01")
		n, text := w.printk(c.format+"\x00", c.args...)
		if n != c.n || text != c.text {
			t.Errorf("%q: %d %q, want %d %q", c.format, n, text, c.n, c.text)
		}
	}
}

func TestPrintkLimits(t *testing.T) {
	w := newWorld(t, strings.Repeat("\x00", 4096))
	if n, text := w.printk("no end"); n != -22 || text != "" {
		t.Errorf("without an end: %d %q", n, text)
	}
	if n, text := w.printk(""); n != -22 || text != "" {
		t.Errorf("without anything: %d %q", n, text)
	}
	b, err := w.inst.Bytes(hello, 600)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, strings.Repeat("x", 190))
	x := strings.Repeat("x", 190)
	// The strings share 512 bytes: the third one is cut.
	if n, text := w.printk("%s %s %s|\x00", hello, hello, hello); n != 190+1+190+1+129+1 || text != x+" "+x+" "+x[:129]+"|" {
		t.Errorf("three strings: %d %q", n, text)
	}
	copy(b, strings.Repeat("x", 430))
	if n, text := w.printk("%s %s %s|\x00", hello, hello, hello); n != -28 || text != "" {
		t.Errorf("no room for the third: %d %q", n, text)
	}
	for _, f := range []string{"%99999999999d", "%099999999999d", "%-99999999999d", "%8388608d"} {
		if n, text := w.printk(f+"|\x00", 1); n != 1<<23 || len(text) != textRoom {
			t.Errorf("%s: %d, %d bytes of text", f, n, len(text))
		}
	}
}
