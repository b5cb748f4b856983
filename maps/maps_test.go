package maps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

func newSpace(t testing.TB) *cage.Space {
	s := new(cage.Space)
	t.Cleanup(func() { s.Close() })
	return s
}

func newMap(t testing.TB, s *cage.Space, spec Spec) Map {
	t.Helper()
	m, err := New(s, spec)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func key(i uint32) []byte { return binary.LittleEndian.AppendUint32(nil, i) }

func TestSpecs(t *testing.T) {
	for _, c := range []struct {
		spec  Spec
		field string // at fault; empty: fine
		err   error
	}{
		{Spec{Type: Array, KeySize: 4, ValueSize: 1, MaxEntries: 1}, "", nil},
		{Spec{Type: PerCPUArray, KeySize: 4, ValueSize: 12, MaxEntries: 3}, "", nil},
		{Spec{Type: Array, KeySize: 4, ValueSize: 9, MaxEntries: 2, Flags: FlagMmapable | FlagReadOnlyProg}, "", nil},
		{Spec{Type: Array, KeySize: 8, ValueSize: 1, MaxEntries: 1}, "KeySize", abi.EINVAL},
		{Spec{Type: Array, KeySize: 4, ValueSize: 0, MaxEntries: 1}, "ValueSize", abi.EINVAL},
		{Spec{Type: Array, KeySize: 4, ValueSize: 1 << 31, MaxEntries: 1}, "ValueSize", abi.E2BIG},
		{Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: 0}, "MaxEntries", abi.EINVAL},
		{Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: FlagNoPrealloc}, "Flags", abi.EINVAL},
		{Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: math.MaxUint32}, "MaxEntries", cage.ErrFull},
		{Spec{Type: Array, KeySize: 4, ValueSize: math.MaxInt32, MaxEntries: math.MaxUint32}, "MaxEntries", cage.ErrFull},
		{Spec{Type: Hash, KeySize: 16, ValueSize: 1, MaxEntries: 1, Flags: FlagNoPrealloc}, "", nil},
		{Spec{Type: PerCPUHash, KeySize: 512, ValueSize: 1, MaxEntries: 1}, "", nil},
		{Spec{Type: Hash, KeySize: 0, ValueSize: 1, MaxEntries: 1}, "KeySize", abi.EINVAL},
		{Spec{Type: Hash, KeySize: 513, ValueSize: 1, MaxEntries: 1}, "KeySize", abi.E2BIG},
		{Spec{Type: Hash, KeySize: 1, ValueSize: 1, MaxEntries: 1, Flags: FlagMmapable}, "Flags", abi.EINVAL},
	} {
		c.spec.Name = "m"
		m, err := New(newSpace(t), c.spec)
		if c.err == nil {
			if err != nil {
				t.Errorf("%+v: %v", c.spec, err)
			} else if d := cmp.Diff(c.spec, m.Spec()); d != "" {
				t.Error(d)
			}
			continue
		}
		var se *SpecError
		if !errors.As(err, &se) || se.Field != c.field || !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, want one about %s that wraps %v", c.spec, err, c.field, c.err)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for _, c := range []struct {
		typ  Type
		want string
	}{
		{27, `map "events": maps of type ringbuf are not supported`},
		{9, `map "events": maps of type lru_hash are not supported`},
		{77, `map "events": maps of type map type 77 are not supported`},
		{0, `map "events": maps of type map type 0 are not supported`},
	} {
		_, err := New(newSpace(t), Spec{Name: "events", Type: c.typ, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		var u *UnsupportedError
		if !errors.As(err, &u) || u.Type != c.typ || !errors.Is(err, errors.ErrUnsupported) || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// TestArray: values lie in a row, 8-byte-rounded, where programs see them.
func TestArray(t *testing.T) {
	for _, typ := range []Type{Array, PerCPUArray} {
		s := newSpace(t)
		m := newMap(t, s, Spec{Type: typ, KeySize: 4, ValueSize: 12, MaxEntries: 3})
		first, ok := m.Lookup(key(0))
		if !ok || first < abi.SharedBase {
			t.Fatalf("the first value is at %#x, %v", first, ok)
		}
		for i := range uint32(3) {
			addr, ok := m.Lookup(key(i))
			if !ok || addr != first+16*uint64(i) {
				t.Errorf("value %d is at %#x, %v, the first at %#x", i, addr, ok, first)
			}
			if v := m.Value(key(i)); len(v) != 12 || !bytes.Equal(v, make([]byte, 12)) {
				t.Errorf("fresh value %d is %v", i, v)
			}
			if n := m.Update(key(i), bytes.Repeat([]byte{byte(i + 1)}, 12), UpdateAny); n != 0 {
				t.Errorf("update %d: %d", i, n)
			}
			b, err := s.Bytes(addr, 16)
			if want := append(bytes.Repeat([]byte{byte(i + 1)}, 12), 0, 0, 0, 0); err != nil || !bytes.Equal(b, want) {
				t.Errorf("memory of value %d: %v, %v", i, b, err)
			}
		}
		for _, i := range []uint32{3, 4, math.MaxUint32} {
			if _, ok := m.Lookup(key(i)); ok || m.Value(key(i)) != nil {
				t.Errorf("there is a value %d", i)
			}
		}
		var all []uint32
		for k, v := range m.All() {
			all = append(all, binary.LittleEndian.Uint32(k), uint32(v[0]))
		}
		if d := cmp.Diff([]uint32{0, 1, 1, 2, 2, 3}, all); d != "" {
			t.Error(d)
		}
	}
}

// TestUsed: of an array, what isn't all zero is found wherever it is, and nothing
// else, whatever a program has written between the values.
func TestUsed(t *testing.T) {
	rnd := testprog.Rand(testprog.Seed(t), 0)
	for _, size := range []uint32{1, 8, 12, 4096, 5000} {
		s := newSpace(t)
		newMap(t, s, Spec{Type: Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}).Update(key(0), bytes.Repeat([]byte{1}, 8), UpdateAny)
		const entries = 3000
		m := newMap(t, s, Spec{Type: Array, KeySize: 4, ValueSize: size, MaxEntries: entries})
		step := uint64(size+7) &^ 7
		first, _ := m.Lookup(key(0))
		for n := range 200 {
			i := rnd.Uint32N(entries)
			at, err := s.Bytes(first+uint64(i)*step+rnd.Uint64N(step), 1)
			if err != nil {
				t.Fatal(err)
			}
			at[0] = byte(n)
		}
		m.Value(key(entries - 1))[size-1] = 1
		var want, got []uint32
		for k, v := range m.All() {
			if len(bytes.Trim(v, "\x00")) > 0 {
				want = append(want, binary.LittleEndian.Uint32(k))
			}
		}
		for k, v := range m.Used() {
			if !bytes.Equal(v, m.Value(k)) {
				t.Errorf("value of %x: %x", k, v)
			}
			got = append(got, binary.LittleEndian.Uint32(k))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("values of %d bytes (-want +got):\n%s", size, d)
		}
		for range m.Used() { // which may be left
			break
		}
	}
}

func TestErrnos(t *testing.T) {
	const unknown = 77
	array := newMap(t, newSpace(t), Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	hash := newMap(t, newSpace(t), Spec{Type: Hash, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	for i, c := range []struct {
		m     Map
		key   uint32
		flags uint64 // of an update; unknown: delete
		want  abi.Errno
	}{
		{array, 0, UpdateAny, 0},
		{array, 1, UpdateExist, 0},
		{array, 1, UpdateNoExist, abi.EEXIST},
		{array, 2, UpdateAny, abi.E2BIG},
		{array, 2, UpdateNoExist, abi.E2BIG},
		{array, 0, 3, abi.EINVAL},
		{array, 2, math.MaxUint64, abi.EINVAL},
		{array, 0, unknown, abi.EINVAL},
		{array, 2, unknown, abi.EINVAL},
		{hash, 5, UpdateExist, abi.ENOENT},
		{hash, 5, unknown, abi.ENOENT},
		{hash, 5, UpdateNoExist, 0},
		{hash, 5, UpdateNoExist, abi.EEXIST},
		{hash, 5, UpdateExist, 0},
		{hash, 6, UpdateAny, 0},
		{hash, 7, UpdateAny, abi.E2BIG},
		{hash, 7, UpdateNoExist, abi.E2BIG},
		{hash, 7, UpdateExist, abi.ENOENT},
		{hash, 6, UpdateAny, 0},
		{hash, 6, 4, abi.EINVAL},
		{hash, 5, unknown, 0},
		{hash, 7, UpdateAny, 0},
		{hash, 5, UpdateAny, abi.E2BIG},
	} {
		var got int64
		if c.flags == unknown {
			got = c.m.Delete(key(c.key))
		} else {
			got = c.m.Update(key(c.key), key(99), c.flags)
		}
		if got != -int64(c.want) {
			t.Errorf("step %d: %v, key %d, flags %d: %d, want %d", i, c.m.Spec().Type, c.key, c.flags, got, -int64(c.want))
		}
	}
}

// TestHashModel compares a hash map with a Go map over random operations, and
// sees to it that values stay where they are.
func TestHashModel(t *testing.T) {
	rnd := testprog.Rand(testprog.Seed(t), 0)
	s := newSpace(t)
	const entries = 20
	m := newMap(t, s, Spec{Type: Hash, KeySize: 4, ValueSize: 4, MaxEntries: entries})
	model, addrs := map[uint32]uint32{}, map[uint32]uint64{}
	for step := range 5000 {
		k, v := rnd.Uint32N(2*entries), rnd.Uint32()
		_, exists := model[k]
		switch rnd.IntN(3) {
		case 0:
			if n := m.Delete(key(k)); (n == 0) != exists {
				t.Fatalf("step %d: deleting %d: %d", step, k, n)
			}
			delete(model, k)
			delete(addrs, k)
		default:
			want := exists || len(model) < entries
			if n := m.Update(key(k), key(v), UpdateAny); (n == 0) != want {
				t.Fatalf("step %d: updating %d: %d", step, k, n)
			}
			if want {
				model[k] = v
			}
		}
		got := map[uint32]uint32{}
		for k, v := range m.All() {
			got[binary.LittleEndian.Uint32(k)] = binary.LittleEndian.Uint32(v)
		}
		if d := cmp.Diff(model, got); d != "" {
			t.Fatalf("step %d: (-want +got)\n%s", step, d)
		}
		seen := map[uint64]bool{}
		for k, v := range model {
			addr, ok := m.Lookup(key(k))
			b, err := s.Bytes(addr, 4)
			if !ok || err != nil || binary.LittleEndian.Uint32(b) != v || seen[addr] {
				t.Fatalf("step %d: key %d at %#x: %v, %v, %v", step, k, addr, ok, b, err)
			}
			if old, ok := addrs[k]; ok && old != addr {
				t.Fatalf("step %d: the value of %d moved from %#x to %#x", step, k, old, addr)
			}
			addrs[k], seen[addr] = addr, true
		}
	}
}

func TestDirect(t *testing.T) {
	s := newSpace(t)
	globals := newMap(t, s, Spec{Name: ".data", Type: Array, KeySize: 4, ValueSize: 10, MaxEntries: 1})
	copy(globals.Value(key(0)), "0123456789")
	base, _ := globals.Lookup(key(0))
	for _, off := range []uint32{0, 9} {
		if addr, err := globals.Direct(off); err != nil || addr != base+uint64(off) {
			t.Errorf("byte %d is at %#x, %v", off, addr, err)
		}
	}
	for _, c := range []struct {
		m   Map
		off uint32
	}{
		{globals, 10},
		{globals, math.MaxUint32},
		{newMap(t, s, Spec{Type: Array, KeySize: 4, ValueSize: 10, MaxEntries: 2}), 0},
		{newMap(t, s, Spec{Type: PerCPUArray, KeySize: 4, ValueSize: 10, MaxEntries: 1}), 0},
		{newMap(t, s, Spec{Type: Hash, KeySize: 4, ValueSize: 10, MaxEntries: 1}), 0},
	} {
		if addr, err := c.m.Direct(c.off); !errors.Is(err, abi.EINVAL) {
			t.Errorf("%v, byte %d: %#x, %v", c.m.Spec(), c.off, addr, err)
		}
	}
}

func TestPut(t *testing.T) {
	m := newMap(t, newSpace(t), Spec{Type: Array, KeySize: 4, ValueSize: 2, MaxEntries: 1})
	if err := Put(m, key(0), []byte{1, 2}, UpdateAny); err != nil || !bytes.Equal(m.Value(key(0)), []byte{1, 2}) {
		t.Error(err)
	}
	for _, c := range []struct {
		key, value []byte
		flags      uint64
		want       error
	}{
		{key(1), []byte{1, 2}, UpdateAny, abi.E2BIG},
		{key(0), []byte{1, 2}, UpdateNoExist, abi.EEXIST},
		{key(0), []byte{1}, UpdateAny, abi.EINVAL},
		{[]byte{0}, []byte{1, 2}, UpdateAny, abi.EINVAL},
	} {
		if err := Put(m, c.key, c.value, c.flags); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
}

func TestSet(t *testing.T) {
	set := NewSet(newSpace(t))
	spec := Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	var maps []Map
	for i := range 5 {
		m, handle, err := set.New(spec)
		if err != nil || handle != abi.MapHandle(i) {
			t.Fatalf("%#x, %v", handle, err)
		}
		maps = append(maps, m)
	}
	for i, m := range maps {
		if got := set.Map(abi.MapHandle(i)); got != m {
			t.Errorf("handle %d is %v", i, got)
		}
	}
	for _, h := range []uint64{0, abi.MapHandle(5), abi.MapHandle(0) + 1, abi.FuncHandle(0), math.MaxUint64, abi.MapHandle(1) | 1<<32} {
		if got := set.Map(h); got != nil {
			t.Errorf("%#x is %v", h, got)
		}
	}
	n := 0
	for h, m := range set.All() {
		if h != abi.MapHandle(n) || m != maps[n] {
			t.Errorf("map %d: %#x, %v", n, h, m)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d maps", n)
	}
	if _, _, err := set.New(Spec{Type: 27}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func TestSetFull(t *testing.T) {
	set := NewSet(newSpace(t))
	set.list.Store(&list{maps: make([]Map, abi.MaxHandles)})
	if _, _, err := set.New(Spec{Type: Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}); !errors.Is(err, abi.E2BIG) {
		t.Error(err)
	}
}

// TestHammer uses maps and their set from several goroutines.
func TestHammer(t *testing.T) {
	set := NewSet(newSpace(t))
	hash, handle, err := set.New(Spec{Type: Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range uint32(4) {
		wg.Go(func() {
			for r := range uint32(2000) {
				m := set.Map(handle).(Map)
				k := key(w<<8 | r%4) // keys of this goroutine
				if n := m.Update(k, binary.LittleEndian.AppendUint64(nil, uint64(r)), UpdateAny); n != 0 {
					t.Errorf("update: %d", n)
				}
				if v := m.Value(k); binary.LittleEndian.Uint64(v) != uint64(r) {
					t.Errorf("%v, want %d", v, r)
				}
				if r%5 == 0 {
					m.Delete(k)
				}
				if r%100 == 0 {
					for range m.All() {
					}
					if _, _, err := set.New(Spec{Type: Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for range hash.All() {
		n++
	}
	if n > 16 {
		t.Errorf("%d entries", n)
	}
}

// BenchmarkUsed looks through the largest array that there can be for the few
// entries that are used.
func BenchmarkUsed(b *testing.B) {
	m := newMap(b, newSpace(b), Spec{Type: Array, KeySize: 4, ValueSize: 8, MaxEntries: abi.SharedMax / 8})
	for i := range uint32(100) {
		m.Value(key(i * 77777))[0] = 1
	}
	for b.Loop() {
		n := 0
		for range m.Used() {
			n++
		}
		if n != 100 {
			b.Fatalf("%d entries", n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, typ := range []Type{Array, Hash} {
		b.Run("type="+typ.String(), func(b *testing.B) {
			set := NewSet(newSpace(b))
			m, handle, err := set.New(Spec{Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: 64})
			if err != nil {
				b.Fatal(err)
			}
			k := key(7)
			m.Update(k, make([]byte, 8), UpdateAny)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := set.Map(handle).Lookup(k); !ok {
					b.Fatal("no value")
				}
			}
		})
	}
}
