package bpfjit_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// runner is what Programs and Instances have in common.
type runner interface {
	RunContext(context.Context, []byte) (uint64, error)
	RunStructContext(context.Context, []byte) (uint64, error)
	RunPacketContext(context.Context, []byte) (uint64, []byte, error)
}

// cancellable gives every way to run a program with a context. run returns what
// the program left of mem.
func cancellable(t *testing.T, p *bpfjit.Program, each func(name string, run func(ctx context.Context, mem []byte) (uint64, []byte, error))) {
	t.Helper()
	in, err := p.NewInstance()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for name, r := range map[string]runner{"Program": p, "Instance": in} {
		each(name+".RunContext", func(ctx context.Context, mem []byte) (uint64, []byte, error) {
			r0, err := r.RunContext(ctx, mem)
			return r0, mem, err
		})
		each(name+".RunStructContext", func(ctx context.Context, mem []byte) (uint64, []byte, error) {
			r0, err := r.RunStructContext(ctx, mem)
			return r0, mem, err
		})
		each(name+".RunPacketContext", r.RunPacketContext)
	}
}

// TestCancel stops an endless loop. What the program has written until then comes
// back.
func TestCancel(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		begun := func() {}
		p := program(t, e, `
			r6 = *(u32 *)(r1 + 0)   ; a packet's address, or 7
			if r6 != 7 goto +1
			r6 = r1
			*(u8 *)(r6 + 4) = 9
			call 1000
			r0 += 1
			goto -2`, func(o *bpfjit.Options) { o.Budget, o.Type = -1, ebpf.XDP },
			helper(func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
				begun()
				return 0, nil
			}))
		const loop = 5
		start, want := []byte{7, 0, 0, 0, 1}, []byte{7, 0, 0, 0, 9}
		cancellable(t, p, func(name string, run func(context.Context, []byte) (uint64, []byte, error)) {
			ctx, cancel := context.WithCancel(context.Background())
			begun = cancel
			_, out, err := run(ctx, bytes.Clone(start))
			var re *bpfjit.RunError
			if !errors.Is(err, context.Canceled) || !errors.As(err, &re) || re.Offset != loop || !bytes.Equal(out, want) {
				t.Errorf("%s: %v, memory %v", name, err, out)
			}
			if _, out, err := run(ctx, bytes.Clone(start)); !errors.Is(err, context.Canceled) || !bytes.Equal(out, start) {
				t.Errorf("%s: cancelled before: %v, memory %v", name, err, out)
			}
			expired, cancel := context.WithTimeoutCause(context.Background(), time.Millisecond, errors.New("cause"))
			defer cancel()
			if _, _, err := run(expired, bytes.Clone(start)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: deadline: %v", name, err)
			}
		})
	})
}

// TestCancelNone: a context that isn't done changes nothing and costs nothing, but
// for the copy that a Program returns of a packet.
func TestCancelNone(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "r0 = 5\nexit", func(o *bpfjit.Options) { o.Type = ebpf.XDP })
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cancellable(t, p, func(name string, run func(context.Context, []byte) (uint64, []byte, error)) {
			mem := []byte{1, 2, 3}
			for _, ctx := range []context.Context{context.Background(), ctx} {
				if r0, out, err := run(ctx, mem); r0 != 5 || !bytes.Equal(out, mem) || err != nil {
					t.Errorf("%s: r0 %d, memory %v, %v", name, r0, out, err)
				}
				want := 1.
				if name == "Program.RunPacketContext" {
					want = 2
				}
				if n := testprog.Allocations(100, func() { run(ctx, mem) }); n >= want {
					t.Errorf("%s: %v allocations a run", name, n)
				}
			}
		})
	})
}
