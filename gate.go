package bpfjit

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
)

// gate counts the runs of a program in instances out of its Space's pool, and lets
// Close wait for them. It is two atomic additions a run.
//
// state is the number of runs inside; closing adds shut, which makes it
// negative for good. Whoever brings it to shut, the last run to leave or the
// one who closes, closes the channel.
type gate struct {
	state atomic.Int64
	empty chan struct{}
	once  sync.Once
}

const shut = -1 << 62

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter lets a run in, or reports that the gate is closed.
func (g *gate) enter() bool {
	if g.state.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	// A run that wasn't let in passes here as well, so the gate can become
	// empty more than once.
	if g.state.Add(-1) == shut {
		g.signal()
	}
}

// busy reports whether runs are inside.
func (g *gate) busy() bool {
	n := g.state.Load()
	return n > 0 || n < 0 && n > shut
}

// close closes the gate and waits until it is empty.
func (g *gate) close() {
	for {
		n := g.state.Load()
		if n < 0 {
			break
		}
		if g.state.CompareAndSwap(n, n+shut) {
			if n == 0 {
				g.signal()
			}
			break
		}
	}
	<-g.empty
}

// signal tells that the closed gate is empty.
func (g *gate) signal() { g.once.Do(func() { close(g.empty) }) }

// executeName is the function that is on the stack of every run.
var executeName = runtime.FuncForPC(reflect.ValueOf((*Instance).execute).Pointer()).Name()

// withinRun reports whether the calling goroutine is inside of a run: whether
// a helper function has called.
func withinRun() bool {
	pcs := make([]uintptr, 64)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*n)
		n = runtime.Callers(2, pcs)
	}
	frames := runtime.CallersFrames(pcs[:n])
	for {
		frame, more := frames.Next()
		if frame.Function == executeName {
			return true
		}
		if !more {
			return false
		}
	}
}
