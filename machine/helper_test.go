//go:build linux && amd64 && !purego

package machine

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// keeps is a program that calls a helper with its own R1 and checks that what
// a function must keep is kept: registers, the native stack and the slice. It
// returns the helper's result, or ends in ud2.
func keeps(helper int) string {
	return `
	53                   ; push rbx
	41 55                ; push r13
	48 c7 c3 13 00 00 00 ; mov rbx, 0x13
	49 c7 c5 1d 00 00 00 ; mov r13, 0x1d
	49 c7 c6 1e 00 00 00 ; mov r14, 0x1e
	49 c7 c7 1f 00 00 00 ; mov r15, 0x1f
	6a 2a                ; push 0x2a
	` + charge(3) + "\n" + callHelper(helper) + `
	59                   ; pop rcx
	48 83 f9 2a          ; cmp rcx, 0x2a
	75 20                ; (jne to ud2)
	48 83 fb 13          ; cmp rbx, 0x13
	75 1a                ; (jne to ud2)
	49 83 fd 1d          ; cmp r13, 0x1d
	75 14                ; (jne to ud2)
	49 83 fe 1e          ; cmp r14, 0x1e
	75 0e                ; (jne to ud2)
	49 83 ff 1f          ; cmp r15, 0x1f
	75 08                ; (jne to ud2)
	48 85 ff             ; test rdi, rdi
	75 03                ; (jne to ud2)
	41 5d                ; pop r13
	5b                   ; pop rbx
	c3                   ; ret
	0f 0b                ; ud2`
}

//go:noinline
func deep(n int) int {
	var a [256]byte
	a[n&255] = byte(n)
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(a[n&255]) - int(byte(n)) + 1
}

// sink makes what is stored escape.
var sink atomic.Pointer[[]byte]

// TestHelpersMay do what Go functions do: the program that called them
// notices nothing.
func TestHelpersMay(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	type fn func(r1 uint64)
	for name, f := range map[string]fn{
		"return":   func(uint64) {},
		"collect":  func(uint64) { runtime.GC() },
		"recurse":  func(uint64) { deep(20000) }, // the goroutine's stack moves
		"sleep":    func(uint64) { time.Sleep(time.Millisecond) },
		"switch":   func(uint64) { runtime.Gosched() },
		"allocate": func(n uint64) { b := make([]byte, 1000+n*100); sink.Store(&b) },
		"lock":     func(uint64) { runtime.LockOSThread(); runtime.UnlockOSThread() },
		"recover": func(uint64) {
			defer func() { recover() }()
			panic("inside")
		},
	} {
		t.Run(name, func(t *testing.T) {
			helpers := NewHelpers(map[uint32]abi.HelperFunc{1: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
				f(r1)
				return r1 * 2, nil
			}})
			space := &cage.Space{}
			im := load(t, assemble(t, keeps(1)))
			var all sync.WaitGroup
			for range 4 {
				i := newInstance(t, space)
				all.Go(func() { // on a small stack
					for n := range uint64(20) {
						in, out := input{R1: n, Input: Input{Budget: 100, Helpers: helpers}}, Result{}
						if once(i, im, &in, &out); out.Stop != abi.StopExit || out.R0 != 2*n || out.Used != 3 {
							t.Errorf("%+v", out)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// TestHelperPanics: the panic is the caller's of Run, and the instance can be
// used again; so is runtime.Goexit.
func TestHelperPanics(t *testing.T) {
	g := newRig(t)
	own := errors.New("own")
	helpers := NewHelpers(map[uint32]abi.HelperFunc{
		1: func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { panic(own) },
		2: func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
			runtime.Goexit()
			return 0, nil
		},
		3: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { return r1, nil },
	})
	var images = map[int][]byte{}
	for n := 1; n <= 3; n++ {
		images[n] = assemble(t, keeps(n))
	}
	for range 100 {
		func() {
			defer func() {
				if got := recover(); got != own {
					t.Fatalf("recovered %v", got)
				}
			}()
			g.runImage(input{Input: Input{Helpers: helpers}}, load(t, images[1]))
		}()
		exited := make(chan bool)
		im := load(t, images[2])
		go func() {
			defer close(exited)
			in, out := input{Input: Input{Helpers: helpers}}, Result{}
			once(g.inst, im, &in, &out)
			t.Error("Goexit came back")
		}()
		<-exited
		if out := g.runImage(input{R1: 9, Input: Input{Helpers: helpers}}, load(t, images[3])); out.R0 != 9 {
			t.Fatalf("afterwards: %+v", out)
		}
	}
}

// TestNested: a helper may run programs on other instances, to any depth, and
// on its caller's instance none.
func TestNested(t *testing.T) {
	space := &cage.Space{}
	const depth = 20
	var insts [depth + 1]*cage.Instance
	for i := range insts {
		insts[i] = newInstance(t, space)
	}
	im := load(t, assemble(t, keeps(1)))
	broken := load(t, assemble(t, "50 ; push rax", "0f 0b ; ud2"))
	var helpers *Helpers
	level := 0
	helpers = NewHelpers(map[uint32]abi.HelperFunc{1: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
		if level == depth {
			return r1, nil
		}
		level++
		defer func() { level-- }()
		in, out := input{R1: r1 + 1, Input: Input{Helpers: helpers}}, Result{}
		if once(insts[level], im, &in, &out); out.Stop != abi.StopExit {
			return 0, fmt.Errorf("level %d: %+v", level, out)
		}
		var bad Result
		if once(insts[level], broken, &in, &bad); bad.Stop != abi.StopFault {
			return 0, fmt.Errorf("level %d: %+v", level, bad)
		}
		return out.R0, nil
	}})
	in, out := input{R1: 1, Input: Input{Helpers: helpers}}, Result{}
	if once(insts[0], im, &in, &out); out.R0 != 1+depth {
		t.Errorf("%+v", out)
	}
}

// TestManyGoroutines runs one image on many instances at once, with the
// collector busy: ends, helpers, slices and faults.
func TestManyGoroutines(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	helpers := NewHelpers(map[uint32]abi.HelperFunc{1: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) {
		s := make([]byte, 100+r1%1000)
		s[0] = byte(r1)
		sink.Store(&s)
		return r1 + 1, nil
	}})
	space := &cage.Space{}
	defer space.Close()
	kept := load(t, assemble(t, keeps(1)))
	loop := load(t, assemble(t, endless(100)))
	bad := load(t, assemble(t, load64(0)))
	end := time.Now().Add(500 * time.Millisecond)
	var all sync.WaitGroup
	for k := range 64 {
		all.Go(func() {
			i, err := space.NewInstance(cage.Window)
			if err != nil {
				t.Error(err)
				return
			}
			defer i.Close()
			for n := uint64(k); n < uint64(k)+10 || time.Now().Before(end); n++ {
				in, out := input{R1: n, Input: Input{Helpers: helpers}}, Result{}
				if once(i, kept, &in, &out); out.Stop != abi.StopExit || out.R0 != n+1 {
					t.Errorf("%+v", out)
					return
				}
				in, out = input{Input: Input{Budget: 10 * abi.Slice}}, Result{}
				if once(i, loop, &in, &out); out.Stop != abi.StopBudget || out.R[0] != 10*abi.Slice/100 {
					t.Errorf("%+v", out)
					return
				}
				in, out = input{R1: n % abi.StackBase}, Result{}
				if once(i, bad, &in, &out); out.Stop != abi.StopFault || out.Addr != int64(n%abi.StackBase) {
					t.Errorf("%+v", out)
					return
				}
			}
		})
	}
	all.Wait()
}
