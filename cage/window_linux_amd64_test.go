package cage

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
)

// peek reads the byte at effective address ea as machine code would, without a
// check. ok is false if the processor faults.
func peek(base unsafe.Pointer, ea int64) (v byte, ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			v, ok = 0, false
		}
	}()
	return *(*byte)(unsafe.Add(base, ea)), true
}

// poke is peek for a write that changes nothing, of the word around ea.
func poke(base unsafe.Pointer, ea int64) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	atomic.AddUint32((*uint32)(unsafe.Add(base, ea&^3)), 0)
	return true
}

// withoutMarkers runs a test on what this kernel offers, and as on a kernel
// that doesn't have guard markers.
func withoutMarkers(t *testing.T, test func(t *testing.T, perInstance int)) {
	old := noMarkers.Load()
	defer noMarkers.Store(old)
	for _, no := range []bool{false, true} {
		name, max := "markers", 5
		if no {
			name, max = "no markers", 9
		}
		t.Run(name, func(t *testing.T) {
			noMarkers.Store(no)
			test(t, max)
			if !no && noMarkers.Load() {
				t.Skip("this kernel has no guard markers")
			}
		})
	}
}

// TestHardware: what the processor lets through is the address plan, at every
// edge, in the guards, and after every change of size.
func TestHardware(t *testing.T) {
	withoutMarkers(t, func(t *testing.T, _ int) {
		s := new(Space)
		defer s.Close()
		i, neighbour := newInstance(t, s, Window), newInstance(t, s, Window)
		check(t, neighbour.SetMem(1<<20))
		base := i.Base()
		if uintptr(base)%abi.WindowSize != 0 {
			t.Fatalf("the base %p is not aligned", base)
		}
		if i.stack != unsafe.Add(base, abi.StackBase) || i.ctx != unsafe.Add(base, abi.CtxBase) || i.mem != unsafe.Add(base, abi.MemBase) {
			t.Fatal("the host looks elsewhere")
		}
		look := func(mem int) {
			t.Helper()
			regions := plan(mem, s.Size())
			for _, ea := range edges(regions) {
				if ea < -32768 || ea > abi.WindowSize+32767+7 {
					continue // no program gets there
				}
				want := mapped(regions, ea, 1)
				if _, ok := peek(base, ea); ok != want {
					t.Fatalf("mem %d, shared %#x: reading %#x: ok = %v, want %v", mem, s.Size(), ea, ok, want)
				}
				if ok := poke(base, ea); ok != want {
					t.Fatalf("mem %d, shared %#x: writing %#x: ok = %v, want %v", mem, s.Size(), ea, ok, want)
				}
			}
		}
		for step, mem := range memSizes {
			check(t, i.SetMem(mem))
			look(mem)
			if step%2 == 1 {
				_, err := s.Alloc(uint64(step) * 5000)
				check(t, err)
				look(mem)
			}
		}
	})
}

// TestGuards walks the guards and the unmapped regions page by page.
func TestGuards(t *testing.T) {
	s := new(Space)
	defer s.Close()
	a, b := newInstance(t, s, Window), newInstance(t, s, Window)
	check(t, a.SetMem(1))
	check(t, b.SetMem(1))
	_, err := s.Alloc(1)
	check(t, err)
	for _, i := range []*Instance{a, b} {
		for _, r := range []struct {
			name     string
			from, to int64
		}{
			{"guard below and null region", abi.ContextOffset + abi.PageSize, abi.StackBase},
			{"stack to context", abi.StackTop, abi.CtxBase},
			{"context to memory", abi.CtxBase + abi.CtxSize, abi.MemBase},
			{"behind memory", abi.MemBase + abi.PageSize, abi.MemBase + 1<<20},
			{"handles", abi.HandleBase, abi.HandleBase + 1<<20},
			{"behind shared memory", abi.SharedBase + abi.PageSize, abi.SharedBase + 1<<20},
			{"end of shared memory and guard above", abi.WindowSize - 1<<20, abi.WindowSize + 1<<20},
			{"guard of the native stack", -slotBelow - abi.GuardSize, -slotBelow},
		} {
			for ea := r.from; ea < r.to; ea += abi.PageSize {
				for _, ea := range []int64{ea, ea + abi.PageSize - 1} {
					if _, ok := peek(i.Base(), ea); ok {
						t.Fatalf("%s: %#x is readable", r.name, ea)
					}
				}
			}
		}
	}
}

// TestNative: the native stack and the Context are there, and nowhere else.
func TestNative(t *testing.T) {
	s := new(Space)
	defer s.Close()
	i := newInstance(t, s, Window)
	if !i.Windowed() || newInstance(t, s, Plain).Windowed() {
		t.Error("Windowed is wrong")
	}
	c := i.Context()
	if *c != (abi.Context{}) {
		t.Errorf("a fresh context is %+v", *c)
	}
	c.Exit, c.SliceStub = 7, 8
	if v, _ := peek(i.Base(), abi.ContextOffset+abi.OffSliceStub); v != 8 {
		t.Error("the context is not at its offset")
	}
	top := i.NativeStackTop()
	if top%16 != 0 || top >= uintptr(unsafe.Pointer(c)) {
		t.Errorf("the stack begins at %#x, the context at %p", top, c)
	}
	off := int64(top) - int64(uintptr(i.Base()))
	if !poke(i.Base(), off-8) || !poke(i.Base(), off-60<<10) {
		t.Error("the native stack is not all there")
	}
}

// slotMaps returns the lines of /proc/self/smaps that lie in slots, and the
// kilobytes resident in them.
func slotMaps(t *testing.T, bases ...unsafe.Pointer) (maps []string, kB int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	check(t, err)
	defer f.Close()
	in := false
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var from, to uintptr
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x", &from, &to); n == 2 {
			in = false
			for _, base := range bases {
				low := uintptr(base) - slotBelow
				in = in || from < low+slotStride && to > low
			}
			if in {
				maps = append(maps, sc.Text())
			}
			continue
		}
		var n int
		if _, err := fmt.Sscanf(sc.Text(), "Rss: %d kB", &n); err == nil && in {
			kB += n
		}
	}
	check(t, sc.Err())
	return maps, kB
}

func countMaps(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/maps")
	check(t, err)
	return bytes.Count(b, []byte("\n"))
}

func countFiles(t *testing.T) int {
	d, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(d)
}

// TestMappings counts mappings: so many for each instance, whatever their
// memory's size, and none left when they are closed.
func TestMappings(t *testing.T) {
	withoutMarkers(t, func(t *testing.T, perInstance int) {
		const n = 40
		cycle := func() (perSlot float64) {
			s := new(Space)
			_, err := s.Alloc(1)
			check(t, err)
			var all []*Instance
			var bases []unsafe.Pointer
			for k := range n {
				i, err := s.NewInstance(Window)
				check(t, err)
				check(t, i.SetMem(memSizes[k%len(memSizes)]))
				all, bases = append(all, i), append(bases, i.Base())
			}
			maps, _ := slotMaps(t, bases...)
			for _, i := range all {
				check(t, i.Close())
			}
			check(t, s.Close())
			return float64(len(maps)) / n
		}
		cycle() // reserves slabs
		before, files := countMaps(t), countFiles(t)
		for range 3 {
			// A slab's lower guard may count, too.
			if got := cycle(); got > float64(perInstance)+0.25 {
				t.Errorf("%.2f mappings an instance, want at most %d", got, perInstance)
			}
		}
		// The Go runtime maps memory and starts threads as well, but a single
		// mapping lost of each instance would be three times n.
		if after := countMaps(t); after > before+2*n {
			t.Errorf("%d mappings before, %d after", before, after)
		}
		if after := countFiles(t); after > files {
			t.Errorf("%d files before, %d after", files, after)
		}
	})
}

// TestMemoryGivenBack looks at what is resident.
func TestMemoryGivenBack(t *testing.T) {
	s := new(Space)
	defer s.Close()
	const big = 16 << 20
	i, err := s.Get(Window, bytes.Repeat([]byte{1}, big))
	check(t, err)
	base := i.Base()
	if _, kB := slotMaps(t, base); kB < big>>10 {
		t.Fatalf("%d kB are resident after writing %d", kB, big>>10)
	}
	s.Put(i, WritesAll)
	if _, kB := slotMaps(t, base); kB > 256 {
		t.Errorf("%d kB are resident in an idle instance", kB)
	}
	i, err = s.Get(Window, bytes.Repeat([]byte{1}, big))
	check(t, err)
	if i.Base() != base {
		t.Fatal("not the same instance")
	}
	check(t, i.SetMem(1))
	if _, kB := slotMaps(t, base); kB > 256 {
		t.Errorf("%d kB are resident after shrinking", kB)
	}
	addr, err := s.Alloc(big)
	check(t, err)
	host, err := s.Bytes(addr, big)
	check(t, err)
	clear(host)
	for k := 0; k < big; k += abi.PageSize {
		i.Store(int64(addr)+int64(k), 1, 1)
	}
	check(t, i.Close())
	maps, kB := slotMaps(t, base)
	if kB != 0 {
		t.Errorf("%d kB are resident in a closed instance", kB)
	}
	for _, m := range maps {
		if !strings.Contains(m, "---p") {
			t.Errorf("a closed instance left %s", m)
		}
	}
}

// TestWritten: memory that nobody has touched is left out, and isn't touched by
// looking.
func TestWritten(t *testing.T) {
	const all, far, near = 64 << 20, 40 << 20, 1 << 20
	s := new(Space)
	defer s.Close()
	addr, err := s.Alloc(all)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Bytes(addr, all)
	if err != nil {
		t.Fatal(err)
	}
	b[near], b[far] = 1, 1
	for range 2 {
		var sum uint64
		found := make(map[uint64]bool)
		for from, to := range s.Written(addr, all) {
			sum += to - from
			for _, o := range []uint64{near, far} {
				found[o] = found[o] || from <= addr+o && addr+o < to
			}
		}
		if !found[near] || !found[far] || sum > all/8 {
			t.Errorf("found %v in %d bytes", found, sum)
		}
	}
	for from, to := range s.Written(addr+near+abi.PageSize/2, abi.PageSize/4) {
		if from < addr+near+abi.PageSize/2 || to > addr+near+3*abi.PageSize/4 {
			t.Errorf("%#x to %#x is beyond what was asked for", from-addr, to-addr)
		}
	}
}

// TestAliases: the windows of a Space and the host see one memory, and an
// atomic is atomic across them.
func TestAliases(t *testing.T) {
	s := new(Space)
	defer s.Close()
	addr, err := s.Alloc(8)
	check(t, err)
	const each = 20000
	var wg sync.WaitGroup
	for range 4 {
		i := newInstance(t, s, Window)
		window := (*[2]uint32)(unsafe.Add(i.Base(), addr))
		wg.Go(func() {
			for k := range each {
				i.AtomicAdd(int64(addr), 4, 1)
				if k%1000 == 0 {
					runtime.Gosched()
				}
				i.AtomicXor(int64(addr)+4, 4, 1<<(k%32))
			}
			_ = window[1]
		})
	}
	wg.Wait()
	i := newInstance(t, s, Window)
	if v := *(*uint32)(unsafe.Add(i.Base(), addr)); v != 4*each {
		t.Errorf("the counter is %d in a new window, want %d", v, 4*each)
	}
	if v := *(*uint32)(unsafe.Add(i.Base(), addr+4)); v != 0 {
		t.Errorf("an even number of flips leaves %#x", v)
	}
}

// TestSlotsApart: no two live slots overlap, however slabs grow.
func TestSlotsApart(t *testing.T) {
	s := new(Space)
	defer s.Close()
	seen := map[uintptr]bool{}
	for range 100 {
		base := uintptr(newInstance(t, s, Window).Base())
		for other := range seen {
			if max(base, other)-min(base, other) < slotStride {
				t.Fatalf("windows at %#x and %#x", base, other)
			}
		}
		seen[base] = true
	}
}

func TestOtherSlotsIntact(t *testing.T) {
	s, other := new(Space), new(Space)
	defer s.Close()
	defer other.Close()
	var all []*Instance
	for k := range 6 {
		sp := s
		if k%2 == 1 {
			sp = other
		}
		i := newInstance(t, sp, Window)
		check(t, i.LoadMem([]byte{byte(k + 1)}))
		all = append(all, i)
	}
	check(t, all[2].Close())
	check(t, all[3].Close())
	for _, k := range []int{0, 1, 4, 5} {
		i := all[k]
		if v, ok := peek(i.Base(), abi.MemBase); v != byte(k+1) || !ok {
			t.Errorf("instance %d lost its memory", k)
		}
		if !poke(i.Base(), abi.StackBase) || !poke(i.Base(), abi.ContextOffset) || !poke(i.Base(), abi.ContextOffset-8) {
			t.Errorf("instance %d lost its stacks", k)
		}
	}
}
