package bpfjit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// within is a program that calls a helper once.
const within = "call 1000\n exit"

func helper(f bpfjit.HelperFunc) func(*bpfjit.Options) {
	return func(o *bpfjit.Options) { o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: f} }
}

// TestClose: what was closed is refused, and closing again is nothing.
func TestClose(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "r0 = 1\nexit")
		in, err := p.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		_, err1 := p.Run(nil)
		_, _, err2 := p.RunPacket(make([]byte, 64))
		_, err3 := p.RunStruct(nil)
		_, err4 := p.NewInstance()
		_, err5 := in.Run(nil)
		for i, err := range []error{err1, err2, err3, err4, err5} {
			if !errors.Is(err, bpfjit.ErrClosed) {
				t.Errorf("use %d after Close: %v", i+1, err)
			}
		}
		for range 2 {
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := in.Run(nil); !errors.Is(err, bpfjit.ErrClosed) {
			t.Errorf("a closed instance: %v", err)
		}
	})
}

// TestCloseWaits: Close returns when the last run is over, and no run begins
// meanwhile.
func TestCloseWaits(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		inside, leave := make(chan bool), make(chan bool)
		p := program(t, e, within, helper(func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
			inside <- true
			<-leave
			return 7, nil
		}))
		done := make(chan bool)
		go func() {
			r0, err := p.Run(nil)
			if r0 != 7 || err != nil {
				t.Errorf("r0 %d, %v", r0, err)
			}
			done <- true
		}()
		<-inside
		closed := make(chan bool)
		for range 2 { // the second closer waits as well
			go func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				closed <- true
			}()
		}
		for {
			in, err := p.NewInstance()
			if errors.Is(err, bpfjit.ErrClosed) {
				break // Close has begun
			}
			if err == nil {
				in.Close()
			}
			time.Sleep(time.Millisecond)
		}
		select {
		case <-closed:
			t.Error("Close returned while a run was under way")
		case <-time.After(5 * time.Millisecond):
		}
		leave <- true
		<-done
		<-closed
		<-closed
	})
}

// TestCloseWithin: a helper can close neither the program nor the instance
// that it runs for, and can close others.
func TestCloseWithin(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		var p *bpfjit.Program
		var in *bpfjit.Instance
		other := program(t, e, "exit")
		p = program(t, e, within, helper(func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
			if err := p.Close(); !errors.Is(err, bpfjit.ErrBusy) {
				t.Errorf("Close of the program: %v", err)
			}
			if err := in.Close(); !errors.Is(err, bpfjit.ErrBusy) {
				t.Errorf("Close of the instance: %v", err)
			}
			if _, err := in.Run(nil); !errors.Is(err, bpfjit.ErrBusy) {
				t.Errorf("Run of the instance: %v", err)
			}
			if err := other.Close(); err != nil {
				t.Errorf("Close of another program: %v", err)
			}
			return 3, nil
		}))
		in, err := p.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		if r0, err := in.Run(nil); r0 != 3 || err != nil {
			t.Errorf("r0 %d, %v", r0, err)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestNested: a helper may run programs, its own included.
func TestNested(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		var p *bpfjit.Program
		p = program(t, e, `
			r6 = r2
			if r6 == 0 goto +2
			call 1000            ; the same with a byte less
			r0 += r6
			exit`, helper(func(env bpfjit.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
			return p.Run(make([]byte, r2-1))
		}))
		if r0, err := p.Run(make([]byte, 20)); r0 != 20*21/2 || err != nil {
			t.Errorf("r0 %d, %v", r0, err)
		}
	})
}

// TestHammer runs, stops and closes all at once.
func TestHammer(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		rounds := 20
		if testing.Short() {
			rounds = 3
		}
		for range rounds {
			p := program(t, e, `
				r3 = 300
				r3 += -1
				if r3 != 0 goto -2
				r0 = r2
				if r1 == 0 goto +1
				*(u8 *)(r1 + 0) = 9
				exit`)
			endless := program(t, e, "goto -1", func(o *bpfjit.Options) { o.Budget = -1 })
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					mem := make([]byte, 1+g*3000)
					for range 50 {
						mem[0] = 0
						switch r0, err := p.Run(mem); {
						case errors.Is(err, bpfjit.ErrClosed):
							return
						case err != nil || r0 != uint64(len(mem)) || mem[0] != 9:
							t.Errorf("r0 %d, %v, memory %d", r0, err, mem[0])
						}
					}
				})
			}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				if _, err := endless.RunContext(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("endless: %v", err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
		}
	})
}

// TestAllocs: runs don't allocate.
func TestAllocs(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "*(u8 *)(r1 + 0) = 1\n r0 = 0\n exit")
		in, err := p.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		mem := make([]byte, 100)
		for name, run := range map[string]func([]byte) (uint64, error){"instance": in.Run, "program": p.Run} {
			if n := testprog.Allocations(100, func() { run(mem) }); n >= 1 {
				t.Errorf("%s: %v allocations a run", name, n)
			}
		}
	})
}
