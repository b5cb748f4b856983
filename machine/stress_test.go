//go:build linux && amd64 && !purego

package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
)

// TestStress does everything at once: programs that end, call helpers that
// allocate, recurse and panic or are native code, fault, are fixed up, or loop until cancelled
// with a constant in every register; images and instances that come and go
// beside them; Go code that dereferences nil and divides by zero; and around it
// the collector, all profiles, the execution tracer, dumps of stacks, signals,
// and fork and exec.
// BPFJIT_STRESS sets how long, such as 60s.
func TestStress(t *testing.T) {
	length := 700 * time.Millisecond
	if s := os.Getenv("BPFJIT_STRESS"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	region, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	runtime.SetBlockProfileRate(1000)
	defer runtime.SetBlockProfileRate(0)
	defer runtime.SetMutexProfileFraction(runtime.SetMutexProfileFraction(10))
	if pprof.StartCPUProfile(io.Discard) == nil {
		defer pprof.StopCPUProfile()
	}

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	var panics atomic.Uint64
	around(t, ctx, &all, &panics)

	helpers := NewHelpers(map[uint32]abi.HelperFunc{
		1: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
			b := make([]byte, 64+r1%2000)
			sink.Store(&b)
			return r1, nil
		},
		2: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
			return r1 + uint64(deep(300))*0, nil
		},
		3: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { panic(r1) },
		4: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
			defer func() { recover() }()
			return uint64(deref(nil)), nil
		},
		5: notCalled,
	}).WithNative(map[uint32]Native{5: NativeLookup})
	code := map[string]*image.Image{
		"allocate": load(t, assemble(t, keeps(1))),
		"recurse":  load(t, assemble(t, keeps(2))),
		"panic":    load(t, assemble(t, keeps(3))),
		"nil":      load(t, assemble(t, keeps(4))),
		"loop":     load(t, assemble(t, endless(3))),
		"keep":     load(t, assemble(t, setAll, countOnStack)),
		"native":   load(t, assemble(t, lookups(5, true))),
		"fault":    load(t, assemble(t, load64(0))),
		"fix up":   load(t, assemble(t, load64(0), "48 83 c0 05 ; add rax, 0x5", "c3 ; ret"), image.NewEntry(3, 8, abi.RAX)),
	}
	var fresh atomic.Pointer[image.Image] // returns its own number
	var freshMu sync.RWMutex              // held while one of them runs
	publishFresh(t, ctx, &all, region, &fresh, &freshMu)

	space := &cage.Space{}
	defer space.Close()
	const kinds = 10
	var runs [kinds]atomic.Uint64
	enough := errors.New("enough")
	var workers sync.WaitGroup
	for k := range 12 {
		workers.Go(func() {
			i, err := space.NewInstance(cage.Window)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { i.Close() }()
			// Every kind at least once, whatever time is left by now.
			for n := uint64(k); n < uint64(k)+kinds || ctx.Err() == nil; n++ {
				in, out := input{R1: n, Input: Input{Helpers: helpers, Arrays: arrays}}, Result{}
				run := func(name string) { once(i, code[name], &in, &out) }
				bad := func(what string) {
					t.Errorf("%s: %+v", what, out)
					cancel()
				}
				runs[n%kinds].Add(1)
				switch n % kinds {
				case 0, 1:
					name := [2]string{"allocate", "recurse"}[n%kinds]
					if run(name); out.Stop != abi.StopExit || out.R0 != n {
						bad(name)
					}
				case 2:
					func() {
						defer func() {
							if r := recover(); r != n {
								bad("panic")
							}
						}()
						run("panic")
					}()
				case 3:
					if run("nil"); out.Stop != abi.StopExit || out.R0 != 0 {
						bad("nil")
					}
				case 4:
					in.R1 %= abi.StackBase
					if run("fault"); out.Stop != abi.StopFault || out.Addr != int64(in.R1) || out.PC != 3 {
						bad("fault")
					}
					if run("fix up"); out.Stop != abi.StopExit || out.R0 != 5 {
						bad("fix up")
					}
				case 5, 8, 9:
					polls := 0
					in.Budget = -1
					in.Poll = func() error {
						if polls++; polls < 10 && ctx.Err() == nil {
							return nil
						}
						return enough
					}
					if n%kinds == 5 {
						if run("loop"); out.Stop != abi.StopCancel || out.R[0] != uint64(out.Used)/3 {
							bad("loop")
						}
						break
					}
					if n%kinds == 9 {
						if run("native"); out.Stop != abi.StopCancel {
							bad("native")
						}
						break
					}
					run("keep")
					regs := i.Context().Regs
					regs[abi.RSP], regs[abi.X86R9], regs[abi.X86R11], regs[abi.X86R12] = 0, 0, 0, 0
					want := [16]uint64{0x10, 0x11, 0x12, 0x13, 0, 0x15, 0x16, 0x17, 0x18, 0, 0x1a, 0, 0, 0x1d, 0x1e, 0x1f}
					if out.Stop != abi.StopCancel || regs != want {
						t.Logf("registers %x", regs)
						bad("keep")
					}
				case 6:
					freshMu.RLock()
					im := fresh.Load()
					once(i, im, &in, &out)
					want := uint64(binary.LittleEndian.Uint32(im.Bytes()[1:]))
					freshMu.RUnlock()
					if out.R0 != want {
						bad("fresh code")
					}
				case 7:
					if n/kinds%16 != 0 {
						continue
					}
					if err := i.Close(); err != nil {
						t.Error(err)
					}
					if i, err = space.NewInstance(cage.Window); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	workers.Wait()
	all.Wait()
	freshMu.Lock()
	fresh.Load().Free()
	freshMu.Unlock()
	var count [len(runs)]uint64
	for k := range runs {
		if count[k] = runs[k].Load(); count[k] == 0 {
			t.Errorf("kind %d never ran", k)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%v: %d collections, %d panics beside; runs by kind: %v", length, m.NumGC, panics.Load(), count)
}

// publishFresh puts images that return their own number into fresh, and frees
// the ones before.
func publishFresh(t *testing.T, ctx context.Context, all *sync.WaitGroup, region *image.Region, fresh *atomic.Pointer[image.Image], mu *sync.RWMutex) {
	one := func(n uint32) {
		code := binary.LittleEndian.AppendUint32([]byte{0xb8}, n) // mov eax, n
		im, err := region.Publish(append(code, 0xc3), nil, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if old := fresh.Swap(im); old != nil {
			mu.Lock()
			//lint:ignore SA2001 whoever ran it has let go of mu by now
			mu.Unlock()
			old.Free()
		}
	}
	one(0)
	all.Go(func() {
		for n := uint32(1); ctx.Err() == nil; n++ {
			one(n)
			if n%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
}

// countOnStack is an endless loop that changes no register but r9 and r11. The
// count is on the native stack.
var countOnStack = "6a 00 ; push 0x0\n" + charge(1) + "\n" +
	"48 ff 04 24 ; inc qword ptr [rsp]\n" +
	fmt.Sprintf("e9 %s ; (jmp to the charge)", word(-chargeLen-9))

// around keeps the rest of the runtime busy until ctx ends, and counts the
// panics of Go code that were recovered.
func around(t *testing.T, ctx context.Context, all *sync.WaitGroup, panics *atomic.Uint64) {
	every := func(d time.Duration, f func()) {
		all.Go(func() {
			for ctx.Err() == nil {
				f()
				time.Sleep(d)
			}
		})
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGURG)
	// For good: one that is still on its way at the end would be deadly.
	signal.Notify(make(chan os.Signal, 1), unix.SIGQUIT)
	all.Go(func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
		}
	})
	every(time.Millisecond, func() {
		unix.Kill(os.Getpid(), unix.SIGUSR1)
		unix.Kill(os.Getpid(), unix.SIGURG)
		unix.Kill(os.Getpid(), unix.SIGQUIT)
	})
	every(5*time.Millisecond, runtime.GC)
	every(100*time.Microsecond, func() {
		for _, f := range []func(){func() { deref(nil) }, func() { _ = divide(1, 0) }} {
			func() {
				defer func() {
					if _, ok := recover().(runtime.Error); ok {
						panics.Add(1)
					} else {
						t.Error("no panic")
					}
				}()
				f()
			}()
		}
	})
	every(20*time.Millisecond, func() {
		if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil && ctx.Err() == nil {
			t.Errorf("exec: %v", err)
		}
	})
	every(10*time.Millisecond, func() {
		runtime.Stack(make([]byte, 1<<20), true)
		if err := Check(); err != nil {
			t.Error(err)
		}
	})
	every(50*time.Millisecond, func() {
		if trace.Start(io.Discard) == nil {
			time.Sleep(50 * time.Millisecond)
			trace.Stop()
		}
	})
}
