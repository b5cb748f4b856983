package cage

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestHistoryNeverShows uses pooled instances in random ways and looks at all
// private memory before each run: it holds what this run was given and zeroes,
// and exactly that much is accessible.
func TestHistoryNeverShows(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		rnd := testprog.Rand(testprog.Seed(t), 0)
		sizes := []int{0, 1, 64, 1500, 4095, 4096, 4097, 9000, 3 << 19, keep + 1, 3 * keep}
		for round := range 100 {
			mem := bytes.Repeat([]byte{1, 2, 3}, sizes[rnd.IntN(len(sizes))]/3)
			i, err := s.Get(kind, mem)
			check(t, err)
			var ctx []byte
			for again := true; again; again = rnd.IntN(2) == 0 {
				switch rnd.IntN(3) {
				case 0:
					mem = make([]byte, sizes[rnd.IntN(len(sizes))])
					check(t, i.SetMem(len(mem)))
				case 1:
					mem = bytes.Repeat([]byte{5}, sizes[rnd.IntN(len(sizes))])
					check(t, i.LoadMem(mem))
				}
			}
			if rnd.IntN(2) == 0 {
				ctx = bytes.Repeat([]byte{6}, rnd.IntN(abi.CtxSize+1))
				check(t, i.LoadCtx(ctx))
			}
			if rnd.IntN(4) == 0 {
				ctx = ctx[:len(ctx)/2]
				check(t, i.LoadCtx(ctx))
			}
			checkPrivate(t, round, i, mem, ctx)
			i.stackDirty = false // the look at it above didn't write

			// The run, within what it says.
			w := Writes{Stack: rnd.IntN(3) * 3000, Ctx: rnd.IntN(2) == 0, Mem: rnd.IntN(2) == 0}
			fill(i, abi.StackTop-int64(min(w.Stack, abi.StackSize)), min(w.Stack, abi.StackSize))
			if w.Ctx {
				fill(i, abi.CtxBase, abi.CtxSize)
			}
			if w.Mem {
				fill(i, abi.MemBase, int(i.memSize))
			}
			// The host, through its views.
			if rnd.IntN(4) == 0 {
				i.Stack()[0] = 8
			}
			if rnd.IntN(4) == 0 {
				i.Ctx()[abi.CtxSize-1] = 8
			}
			copy(i.Mem(), bytes.Repeat([]byte{8}, len(i.Mem())))
			s.Put(i, w)
		}
	})
}

func fill(i *Instance, from int64, n int) {
	b, err := i.Bytes(uint64(from), uint64(n))
	if err != nil {
		panic(err)
	}
	copy(b, bytes.Repeat([]byte{7}, n))
}

func checkPrivate(t *testing.T, round int, i *Instance, mem, ctx []byte) {
	t.Helper()
	pad := func(b []byte, n int) []byte { return append(append([]byte{}, b...), make([]byte, n-len(b))...) }
	size := (len(mem) + 4095) / 4096 * 4096
	for _, r := range []struct {
		name string
		base uint64
		want []byte
	}{
		{"mem", abi.MemBase, pad(mem, size)},
		{"ctx", abi.CtxBase, pad(ctx, abi.CtxSize)},
		{"stack", abi.StackBase, make([]byte, abi.StackSize)},
	} {
		got, err := i.Bytes(r.base, uint64(len(r.want)))
		check(t, err)
		if !bytes.Equal(got, r.want) {
			t.Fatalf("round %d: %s is not as this run should see it", round, r.name)
		}
		if _, ok := i.Load(int64(r.base)+int64(len(r.want)), 1); ok {
			t.Fatalf("round %d: there is more than %d bytes of %s", round, len(r.want), r.name)
		}
	}
	if len(i.Mem()) != len(mem) {
		t.Fatalf("round %d: Mem has %d bytes, want %d", round, len(i.Mem()), len(mem))
	}
	if i.stackDirty {
		t.Fatalf("round %d: stack is dirty from the beginning", round)
	}
}

func TestPoolReuses(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		a, err := s.Get(kind, nil)
		check(t, err)
		b, err := s.Get(kind, nil)
		check(t, err)
		if a == b {
			t.Fatal("one instance for two")
		}
		s.Put(a, WritesAll)
		s.Put(b, WritesAll)
		c, err := s.Get(kind, nil)
		check(t, err)
		d, err := s.Get(kind, nil)
		check(t, err)
		if s.open != 2 || !(c == a && d == b || c == b && d == a) {
			t.Errorf("idle instances were lost: %d are open", s.open)
		}
		check(t, c.Close())
		check(t, c.Close())
		s.Put(d, WritesAll)
	})
}

func TestPutMisused(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		mustPanic := func(what string, f func()) {
			defer func() {
				if recover() == nil {
					t.Errorf("%s didn't panic", what)
				}
			}()
			f()
		}
		mustPanic("Put of a lone instance", func() { s.Put(newInstance(t, s, kind), WritesAll) })
		i, err := s.Get(kind, nil)
		check(t, err)
		s.Put(i, WritesAll)
		mustPanic("Put twice", func() { s.Put(i, WritesAll) })
		mustPanic("Close after Put", func() { i.Close() })
	})
}

// TestHammer uses one Space from many goroutines: instances come and go, the
// Space grows, and all count in shared memory.
func TestHammer(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		const workers, rounds = 8, 300
		counter, err := s.Alloc(16)
		check(t, err)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for r := range rounds {
					mem := binary.LittleEndian.AppendUint64(nil, uint64(w)<<32|uint64(r))
					i, err := s.Get(kind, mem)
					if err != nil {
						t.Error(err)
						return
					}
					i.AtomicAdd(int64(counter), 8, 1)
					i.AtomicXor(int64(counter+8), 4, 1<<(r%32))
					i.StoreRelease(int64(counter+12)+int64(w%4), 1, uint64(w)) // neighbours in a word
					i.Store(abi.StackBase+int64(8*w), 8, 1)
					if v, _ := i.Load(abi.MemBase, 8); v != uint64(w)<<32|uint64(r) {
						t.Errorf("memory of another run: %#x", v)
					}
					if r%50 == w {
						addr, err := s.Alloc(100)
						if err != nil {
							t.Error(err)
							return
						}
						if v, ok := i.Load(int64(addr), 8); v != 0 || !ok {
							t.Errorf("fresh memory: %#x, %v", v, ok)
						}
					}
					s.Put(i, Writes{Stack: abi.StackSize})
				}
			})
		}
		wg.Wait()
		i := newInstance(t, s, kind)
		if v, _ := i.Load(int64(counter), 8); v != workers*rounds {
			t.Errorf("the counter is %d, want %d", v, workers*rounds)
		}
		if b, _ := i.Load(int64(counter+12), 4); b&0x03030303 != 0x03020100 || b&^0x07060504 != 0 {
			t.Errorf("bytes stored side by side: %#x", b)
		}
		check(t, i.SetMem(0))
	})
}

// TestHammerClose closes a Space while others use it.
func TestHammerClose(t *testing.T) {
	for range 8 {
		each(t, func(t *testing.T, s *Space, kind Kind) {
			_, err := s.Alloc(8)
			check(t, err)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for {
						i, err := s.Get(kind, []byte("x"))
						if err != nil {
							return
						}
						if old, ok := i.AtomicAdd(abi.SharedBase, 8, 1); !ok {
							t.Error("shared memory went while in use, after", old)
						}
						s.Put(i, WritesAll)
					}
				})
			}
			runtime.Gosched()
			check(t, s.Close())
			wg.Wait()
		})
	}
}

func TestPoolAllocs(t *testing.T) {
	each(t, func(t *testing.T, s *Space, kind Kind) {
		mem := make([]byte, 64)
		if n := testprog.Allocations(100, func() {
			i, err := s.Get(kind, mem)
			if err != nil {
				panic(err)
			}
			s.Put(i, WritesAll)
		}); n != 0 {
			t.Errorf("%v allocations for a Get and Put", n)
		}
	})
}

func TestPlainMemoryShrinks(t *testing.T) {
	i := newInstance(t, new(Space), Plain)
	check(t, i.SetMem(64<<20))
	check(t, i.SetMem(1))
	if n := cap(i.buf); n > keep {
		t.Errorf("%d bytes are kept for one", n)
	}
	if unsafe.SliceData(i.buf) != (*byte)(i.mem) {
		t.Error("mem is not in buf")
	}
}

func benchKinds(b *testing.B, bench func(b *testing.B, s *Space, kind Kind)) {
	for kind, name := range []string{"plain", "window"} {
		if Kind(kind) == Window && Supported() != nil {
			continue
		}
		b.Run("kind="+name, func(b *testing.B) {
			s := new(Space)
			defer s.Close()
			b.ReportAllocs()
			bench(b, s, Kind(kind))
		})
	}
}

func BenchmarkGetPut(b *testing.B) {
	for _, w := range []struct {
		name string
		mem  int
		w    Writes
	}{
		{"mem=0/writes=none", 0, Writes{}},
		{"mem=64/writes=mem", 64, Writes{Mem: true}},
		{"mem=64/writes=all", 64, WritesAll},
		{"mem=1500/writes=all", 1500, WritesAll},
	} {
		b.Run(w.name, func(b *testing.B) {
			benchKinds(b, func(b *testing.B, s *Space, kind Kind) {
				mem := make([]byte, w.mem)
				for b.Loop() {
					i, err := s.Get(kind, mem)
					if err != nil {
						b.Fatal(err)
					}
					s.Put(i, w.w)
				}
			})
		})
	}
}

func BenchmarkGetPutParallel(b *testing.B) {
	benchKinds(b, func(b *testing.B, s *Space, kind Kind) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i, err := s.Get(kind, nil)
				if err != nil {
					b.Fatal(err)
				}
				s.Put(i, Writes{})
			}
		})
	})
}

func BenchmarkNewClose(b *testing.B) {
	benchKinds(b, func(b *testing.B, s *Space, kind Kind) {
		for b.Loop() {
			i, err := s.NewInstance(kind)
			if err != nil {
				b.Fatal(err)
			}
			i.Close()
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	benchKinds(b, func(b *testing.B, s *Space, kind Kind) {
		i := newInstance(b, s, kind)
		check(b, i.SetMem(64))
		_, err := s.Alloc(64)
		check(b, err)
		for _, at := range []struct {
			name string
			ea   int64
		}{{"stack", abi.StackBase}, {"mem", abi.MemBase}, {"shared", abi.SharedBase}} {
			b.Run("at="+at.name, func(b *testing.B) {
				for b.Loop() {
					if _, ok := i.Load(at.ea, 8); !ok {
						b.Fatal("unmapped")
					}
				}
			})
		}
	})
}
