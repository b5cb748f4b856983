package bpfjit

import (
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
)

// number is a program that returns n, in a Space.
func number(t *testing.T, space *Space, n int32) *Program {
	t.Helper()
	p, err := Compile(asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()}, &Options{Space: space})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// closing closes a program. The answer is whether that is over soon.
func closing(t *testing.T, p *Program) (over func(wait time.Duration) bool) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for !p.closed.Load() {
		time.Sleep(time.Microsecond)
	}
	return func(wait time.Duration) bool {
		select {
		case <-done:
			return true
		case <-time.After(wait):
			return false
		}
	}
}

// TestCloseWaitsForItsOwn: Close waits for runs of its program, and not for one of
// another program that has come to where it ran before. That may be at any step of
// coming there.
func TestCloseWaitsForItsOwn(t *testing.T) {
	const soon, ever = 5 * time.Millisecond, 10 * time.Second
	space := NewSpace()
	defer space.Close()
	first, second, third := number(t, space, 1), number(t, space, 2), number(t, space, 3)
	if _, err := first.Run(nil); err != nil {
		t.Fatal(err)
	}
	all := space.all(first.kind)
	if len(all) != 1 || all[0].p.Load() != first {
		t.Fatalf("%d residents", len(all))
	}
	in := all[0]

	// Somebody runs the second program where the first one ran.
	if !in.frame.Try() {
		t.Fatal("busy")
	}
	if err := in.settle(second, nil); err != nil {
		t.Fatal(err)
	}
	over := closing(t, first)(ever)
	in.end()
	if !over {
		t.Fatal("Close waits for a run of another program")
	}

	// Somebody is there, with the second program or another one.
	if !in.frame.Try() {
		t.Fatal("busy")
	}
	closed := closing(t, second)
	if closed(soon) {
		t.Error("Close doesn't wait for who may run its program")
	}
	err := in.settle(third, nil)
	over = closed(ever)
	in.end()
	if !over || err != nil {
		t.Fatalf("Close waits for a run of another program: %v, %v", !over, err)
	}
	if r0, err := third.Run(nil); r0 != 3 || err != nil {
		t.Error(r0, err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}
