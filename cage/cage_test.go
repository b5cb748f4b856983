package cage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

// each runs a test over every kind of instance that there is here, and over a
// Space that had to do without a file.
func each(t *testing.T, test func(t *testing.T, s *Space, kind Kind)) {
	t.Helper()
	run := func(name string, s *Space, kind Kind) {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if s.open != 0 || s.mem != nil {
					t.Errorf("the closed Space still has %d instances, memory: %v", s.open, s.mem != nil)
				}
			})
			test(t, s, kind)
		})
	}
	run("plain", new(Space), Plain)
	run("no file", &Space{plain: true}, Plain)
	if Supported() == nil {
		run("window", new(Space), Window)
	}
}

func newInstance(t testing.TB, s *Space, kind Kind) *Instance {
	t.Helper()
	i, err := s.NewInstance(kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// region is a piece of accessible guest memory.
type region struct{ base, size uint64 }

// plan lists the accessible regions after abi/plan.go, independently of at.
func plan(mem int, shared uint64) []region {
	page := uint64(abi.PageSize)
	return []region{
		{abi.StackBase, abi.StackSize},
		{abi.CtxBase, abi.CtxSize},
		{abi.MemBase, (uint64(mem) + page - 1) / page * page},
		{abi.SharedBase, shared},
	}
}

// mapped says whether the n bytes at ea are all accessible. No two regions
// touch.
func mapped(regions []region, ea int64, n int) bool {
	for _, r := range regions {
		if ea >= int64(r.base) && ea+int64(n) <= int64(r.base+r.size) {
			return true
		}
	}
	return false
}

// edges lists effective addresses around everything where something changes.
func edges(regions []region) []int64 {
	places := []int64{-32768, 0, abi.GuardSize, abi.HandleBase, abi.FuncHandleBase, abi.SharedBase, abi.SharedBase + abi.SharedMax,
		abi.WindowSize, abi.WindowSize + 32767 - 8, abi.ContextOffset, abi.MemBase + abi.MemMax}
	for _, r := range regions {
		places = append(places, int64(r.base), int64(r.base+r.size), int64(r.base+r.size/2), int64(r.base+r.size+abi.PageSize))
	}
	var eas []int64
	for _, p := range places {
		for d := int64(-9); d <= 9; d++ {
			eas = append(eas, p+d)
		}
	}
	return eas
}

var memSizes = []int{0, 1, 4095, 4096, 4097, 3 * 4096, 5 << 20, 0, 1 << 16, 1}

// TestEdges compares every access at every edge with the address plan, for
// memory and shared memory of several sizes one after the other in the same
// instance.
func TestEdges(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		for step, mem := range memSizes {
			check(t, i.SetMem(mem))
			if step%2 == 1 {
				_, err := s.Alloc(uint64(step) * 3000)
				check(t, err)
			}
			regions := plan(mem, s.Size())
			for _, ea := range edges(regions) {
				for _, n := range []int{1, 2, 4, 8} {
					testAccess(t, i, ea, n, mapped(regions, ea, n))
				}
				for _, n := range []uint64{0, 1, 7, 4096, 1 << 31} {
					want := mapped(regions, ea, int(n)) || n == 0
					b, err := i.Bytes(uint64(ea), n)
					if ea < 0 || ea >= abi.WindowSize {
						continue // Bytes wraps where accesses don't
					}
					if (err == nil) != want || err == nil && uint64(len(b)) != n {
						t.Fatalf("mem %d: Bytes(%#x, %d) = %d bytes, %v; want ok = %v", mem, ea, n, len(b), err, want)
					}
					if err != nil && !errors.Is(err, abi.ErrFault) {
						t.Fatalf("Bytes(%#x, %d): %v doesn't wrap ErrFault", ea, n, err)
					}
				}
			}
		}
	})
}

// testAccess tries every kind of access of n bytes at ea.
func testAccess(t *testing.T, i *Instance, ea int64, n int, want bool) {
	t.Helper()
	v := uint64(0x8877665544332211)
	mask := uint64(1)<<(8*n-1)<<1 - 1
	verify := func(what string, got, wantV uint64, ok, want bool) {
		t.Helper()
		if ok != want {
			t.Fatalf("%s of %d bytes at %#x: ok = %v, want %v", what, n, ea, ok, want)
		}
		if ok && got != wantV&mask {
			t.Fatalf("%s of %d bytes at %#x = %#x, want %#x", what, n, ea, got, wantV&mask)
		}
	}
	verify("store", 0, 0, i.Store(ea, n, v), want)
	got, ok := i.Load(ea, n)
	verify("load", got, v, ok, want)

	want = want && ea%int64(n) == 0
	got, ok = i.LoadAcquire(ea, n)
	verify("load-acquire", got, v, ok, want)
	verify("store-release", 0, 0, i.StoreRelease(ea, n, ^v), want)
	got, ok = i.LoadAcquire(ea, n)
	verify("load-acquire", got, ^v, ok, want)
	if n < 4 {
		return
	}
	// 4 of ^v is the state now.
	s := ^v
	step := func(what string, old, want0 uint64, ok bool) {
		t.Helper()
		verify(what, old, want0, ok, want)
	}
	old, ok := i.AtomicAdd(ea, n, v)
	step("add", old, s, ok)
	s += v
	old, ok = i.AtomicOr(ea, n, 0xf0f1)
	step("or", old, s, ok)
	s |= 0xf0f1
	old, ok = i.AtomicAnd(ea, n, v)
	step("and", old, s, ok)
	s &= v
	old, ok = i.AtomicXor(ea, n, 3*v&^0xff)
	step("xor", old, s, ok)
	s ^= 3 * v &^ 0xff
	old, ok = i.AtomicSwap(ea, n, 5*v&^0xff)
	step("swap", old, s, ok)
	s = 5 * v &^ 0xff
	old, ok = i.AtomicCompareSwap(ea, n, s+1, 1)
	step("compare-swap, unequal", old, s, ok)
	old, ok = i.AtomicCompareSwap(ea, n, s, v)
	step("compare-swap, equal", old, s, ok)
	got, ok = i.LoadAcquire(ea, n)
	verify("load-acquire after all", got, v, ok, want)
	// Leave nothing behind that a later look would take for its own.
	i.Store(ea, n, 0)
}

// TestCompareSwapHigh: 4 bytes compare the low halves only.
func TestCompareSwapHigh(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		i.Store(abi.StackBase, 8, 0x11111111_22222222)
		if old, ok := i.AtomicCompareSwap(abi.StackBase, 4, 0xffffffff_22222222, 0xeeeeeeee_33333333); old != 0x22222222 || !ok {
			t.Errorf("old = %#x, %v", old, ok)
		}
		if v, _ := i.Load(abi.StackBase, 8); v != 0x11111111_33333333 {
			t.Errorf("memory is %#x", v)
		}
	})
}

// TestStoreAcrossEdge: a store that isn't all mapped changes nothing.
func TestStoreAcrossEdge(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		check(t, i.LoadMem(bytes.Repeat([]byte{0xaa}, 4096)))
		for o := 4089; o < 4096; o++ {
			if i.Store(abi.MemBase+int64(o), 8, 0) {
				t.Errorf("a store at offset %d went through", o)
			}
		}
		for o, b := range i.Mem() {
			if b != 0xaa {
				t.Fatalf("byte %d is %#x", o, b)
			}
		}
	})
}

// TestBytesLow: helpers see pointers as accesses do, by their low 32 bits.
func TestBytesLow(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		check(t, i.LoadMem([]byte("text")))
		b, err := i.Bytes(0xffff_ffff_0000_0000|abi.MemBase, 4)
		if err != nil || string(b) != "text" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestAlloc(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		next := uint64(abi.SharedBase)
		for _, n := range []uint64{0, 1, 4096, 4097, 1 << 20, 8} {
			addr, err := s.Alloc(n)
			check(t, err)
			if addr != next {
				t.Fatalf("Alloc(%d) = %#x, want %#x", n, addr, next)
			}
			next += (max(n, 1) + 4095) / 4096 * 4096
			if s.Size() != next-abi.SharedBase {
				t.Fatalf("after Alloc(%d) the size is %#x, want %#x", n, s.Size(), next-abi.SharedBase)
			}
			host, err := s.Bytes(addr, next-addr)
			check(t, err)
			for k, b := range host {
				if b != 0 {
					t.Fatalf("byte %d of a fresh allocation is %#x", k, b)
				}
			}
			host[len(host)-1] = 7
			if v, ok := i.Load(int64(next-1), 1); v != 7 || !ok {
				t.Fatalf("the program reads %d, %v where the host wrote 7", v, ok)
			}
			i.Store(int64(next-1), 1, 9)
			if host[len(host)-1] != 9 {
				t.Fatal("the host doesn't see what the program wrote")
			}
		}
		for _, n := range []uint64{abi.SharedMax, abi.SharedMax + 1, 1 << 40, ^uint64(0)} {
			if _, err := s.Alloc(n); !errors.Is(err, ErrFull) {
				t.Errorf("Alloc(%#x): %v, want ErrFull", n, err)
			}
		}
		if _, err := s.Bytes(abi.MemBase, 1); !errors.Is(err, abi.ErrFault) {
			t.Errorf("Space.Bytes of private memory: %v", err)
		}
		if b, err := s.Bytes(0, 0); err != nil || len(b) != 0 {
			t.Errorf("no bytes: %v, %v", b, err)
		}
	})
}

// TestAllocAll fills a Space to the last page.
func TestAllocAll(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		if s.plain && plainLimit < abi.SharedMax {
			t.Skip("this system has less room")
		}
		i := newInstance(t, s, kind)
		addr, err := s.Alloc(abi.SharedMax)
		check(t, err)
		last := int64(addr + abi.SharedMax - 8)
		if !i.Store(last, 8, 1) || i.Store(last+1, 8, 1) {
			t.Error("the last byte is not where it should be")
		}
		if _, err := s.Alloc(1); !errors.Is(err, ErrFull) {
			t.Error(err)
		}
	})
}

func TestRanges(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		i := newInstance(t, s, kind)
		check(t, i.LoadMem([]byte("kept")))
		for _, n := range []int{-1, abi.MemMax + 1} {
			if err := i.SetMem(n); !errors.Is(err, abi.ErrFault) {
				t.Errorf("SetMem(%d): %v", n, err)
			}
		}
		if string(i.Mem()) != "kept" {
			t.Error("a refused size changed the memory")
		}
		if err := i.LoadCtx(make([]byte, abi.CtxSize+1)); !errors.Is(err, abi.ErrFault) {
			t.Errorf("LoadCtx: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		addr, err := s.Alloc(8)
		check(t, err)
		i := newInstance(t, s, kind)
		check(t, s.Close())
		if _, err := s.Bytes(addr, 8); err != nil {
			t.Errorf("the memory went although an instance is open: %v", err)
		}
		if _, err := s.NewInstance(kind); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := s.Get(kind, nil); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := s.Alloc(1); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		check(t, i.Close())
		check(t, i.Close())
		if _, err := s.Bytes(addr, 8); err == nil {
			t.Error("the memory is still there")
		}
		if _, ok := i.Load(abi.MemBase, 1); ok {
			t.Error("a closed instance has memory")
		}
	})
}

func TestNoWindow(t *testing.T) {
	s := &Space{plain: true}
	defer s.Close()
	_, err := s.NewInstance(Window)
	if !errors.Is(err, ErrNoWindow) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want ErrNoWindow", err)
	}
	if _, err := s.Get(Window, nil); !errors.Is(err, ErrNoWindow) {
		t.Errorf("%v, want ErrNoWindow", err)
	}
	if s.open != 0 {
		t.Errorf("%d instances are open", s.open)
	}
	if err := s.Windows(); !errors.Is(err, ErrNoWindow) {
		t.Errorf("%v, want ErrNoWindow", err)
	}
	fresh := &Space{}
	for range 2 {
		if err := fresh.Windows(); (err == nil) != (Supported() == nil) || err != nil && !errors.Is(err, ErrNoWindow) {
			t.Errorf("%v, and this build: %v", err, Supported())
		}
	}
	if fresh.mem != nil {
		t.Error("asking took memory")
	}
}

func TestRangeError(t *testing.T) {
	err := error(&RangeError{Addr: 0x1234, Len: 8})
	if got, want := fmt.Sprint(err), "memory fault: 8 bytes at guest address 0x1234"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
