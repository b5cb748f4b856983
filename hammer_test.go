package bpfjit_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bpfjit/bpfjit"
)

// long is as many runs as make a goroutine the owner of an instance.
const long = 1500

// TestHammerOwners closes programs and instances that goroutines own, at any
// moment, while others take their place, in code and in memory. A run is one of
// its own program, or an error.
func TestHammerOwners(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		rounds := 30
		if testing.Short() {
			rounds = 5
		}
		type numbered struct {
			*bpfjit.Program
			in   *bpfjit.Instance
			r0   uint64
			runs atomic.Int64
		}
		space := bpfjit.NewSpace()
		defer space.Close()
		var current [2]atomic.Pointer[numbered]
		fresh := func(k, n int) *numbered {
			x := &numbered{r0: uint64(1000*k + n)}
			x.Program = program(t, e, fmt.Sprintf("r0 = %d\nexit", x.r0), func(o *bpfjit.Options) { o.Space = space })
			var err error
			if x.in, err = x.NewInstance(); err != nil {
				t.Fatal(err)
			}
			current[k].Store(x)
			return x
		}
		first := [2]*numbered{fresh(0, 0), fresh(1, 0)}
		var over atomic.Bool
		var runners, closers sync.WaitGroup
		for k := range current {
			for range 2 {
				runners.Go(func() {
					for n := 0; !over.Load(); n++ {
						x := current[(k+n>>12)&1].Load()
						r0, err := x.Run(nil)
						if err == nil && r0 != x.r0 || err != nil && !errors.Is(err, bpfjit.ErrClosed) {
							t.Errorf("program: r0 %d, want %d, %v", r0, x.r0, err)
							return
						}
						r0, err = x.in.Run(nil)
						if err == nil && r0 != x.r0 || err != nil && !errors.Is(err, bpfjit.ErrClosed) && !errors.Is(err, bpfjit.ErrBusy) {
							t.Errorf("instance: r0 %d, want %d, %v", r0, x.r0, err)
							return
						}
						x.runs.Add(1)
						if n%256 == 0 {
							runtime.Gosched()
						}
					}
				})
			}
			closers.Go(func() {
				x := first[k]
				for n := range rounds {
					for x.runs.Load() < int64(long*(n%3)) && !t.Failed() {
						runtime.Gosched()
					}
					old := x
					x = fresh(k, n+1)
					if err := old.Close(); err != nil {
						t.Error(err)
					}
					if err := old.in.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		closers.Wait()
		over.Store(true)
		runners.Wait()
	})
}

// TestHammerBusy has two goroutines use an instance at once, in ways that need
// all of its memory. The one that is served is alone in it.
func TestHammerBusy(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		rounds := 20 * long
		if testing.Short() {
			rounds = 2 * long
		}
		in, err := program(t, e, `
			r3 = *(u64 *)(r10 - 8)   ; nobody was here before
			*(u64 *)(r10 - 8) = 1
			r0 = r2
			r0 += r3
			if r1 == 0 goto +2
			r4 = *(u8 *)(r1 + 0)
			r0 += r4
			exit`).NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for k := range 2 {
			all.Go(func() {
				mem := []byte{byte(k + 1), 0, 0}
				for n := 0; n < rounds; {
					data, want := mem, uint64(4+k)
					if n/long%2 == k {
						data, want = nil, 0
					}
					switch r0, err := in.Run(data); {
					case errors.Is(err, bpfjit.ErrBusy):
						runtime.Gosched()
					case err != nil || r0 != want:
						t.Errorf("r0 %d, want %d, %v", r0, want, err)
						return
					default:
						n++
					}
				}
			})
		}
		all.Wait()
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}
