package bpfjit

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
	"github.com/bpfjit/bpfjit/machine"
)

// Instance is a Program together with memory of its own to run in: stack,
// context, packet. It spares a run the way through the pools. One goroutine
// at a time may use it; a second one gets ErrBusy. Maps and globals are shared
// with all other instances of the Space.
type Instance struct {
	p    *Program
	mem  *cage.Instance
	used int64
	// writes are those of the program.
	writes cage.Writes

	native bool // Run may enter frame at once: machine code, without labels
	bound  bool // frame is bound: machine code is run
	frame  machine.Frame
	input  machine.Input
	env    helpers.Env // what helper functions see of a run

	state atomic.Int32
	over  chan struct{} // closed once there will be no more runs
	once  sync.Once     // of over

	poll   func() error    // cancelled, made once
	cancel context.Context // of the run under way, if it can be cancelled
	ctx    []byte          // scratch: a context structure
}

// The state of an instance is 0 or a sum of these. A run adds running to 0 and
// nothing else, which is one atomic operation to begin it and one to end it.
const (
	running = 1 << iota
	shutOff // the program is closed
	closed  // the instance is
)

// newInstance returns an instance that has no memory yet.
func newInstance(p *Program) *Instance {
	in := &Instance{over: make(chan struct{})}
	in.poll = in.cancelled
	in.bind(p)
	return in
}

// bind makes the instance one of a program.
func (in *Instance) bind(p *Program) {
	s := &p.settings
	in.p, in.native, in.bound, in.writes = p, false, false, p.writes
	in.env = helpers.Env{
		Maps: p.space.maps(), Clock: s.Clock, Rand: s.Random, Processor: s.CPU, Printer: s.print,
	}
}

// use gives the instance its memory.
func (in *Instance) use(m *cage.Instance) {
	in.mem, in.env.Memory = m, m
	if e, ok := in.p.engine.(*native); ok {
		in.input = machine.Input{
			Budget: e.budget, Helpers: e.helpers, Env: &in.env, Arrays: in.env.Maps.Arrays(), CPU: in.env.Processor,
		}
		in.frame.Bind(m, e.image, &in.input)
		in.native, in.bound = in.p.labels == nil, true
	}
}

// Run is [Program.Run] in this instance.
func (in *Instance) Run(mem []byte) (r0 uint64, err error) {
	if !in.state.CompareAndSwap(0, running) {
		return 0, in.refuse()
	}
	if len(mem) != 0 || in.mem.HasMem() {
		if err := in.load(mem); err != nil {
			return 0, err
		}
	}
	if !in.native {
		return in.whole(mem)
	}
	if !in.enter(mem) {
		return in.rest(mem)
	}
	r0 = in.frame.R0()
	in.end()
	return r0, nil
}

// RunContext is [Program.RunContext] in this instance.
func (in *Instance) RunContext(ctx context.Context, mem []byte) (r0 uint64, err error) {
	if err := in.begin(mem); err != nil {
		return 0, err
	}
	defer in.end()
	return in.runMem(ctx, mem)
}

// RunStruct is [Program.RunStruct] in this instance.
func (in *Instance) RunStruct(data []byte) (r0 uint64, err error) {
	if err := in.begin(nil); err != nil {
		return 0, err
	}
	defer in.end()
	return in.runStruct(context.Background(), data)
}

// RunPacket is [Program.RunPacket] in this instance. out is the instance's
// own memory: it is valid until the instance is used again.
func (in *Instance) RunPacket(pkt []byte) (r0 uint64, out []byte, err error) {
	if err := in.begin(pkt); err != nil {
		return 0, nil, err
	}
	defer in.end()
	return in.runPacket(context.Background(), pkt)
}

// Used returns how much of its budget the last run used: an upper bound on the
// instructions that it executed, the same in every engine.
func (in *Instance) Used() int64 { return in.used }

// Close gives the instance's memory back. Closing again does nothing; closing
// it while it runs is an error that wraps ErrBusy.
func (in *Instance) Close() error {
	for {
		n := in.state.Load()
		switch {
		case n&running != 0:
			return fmt.Errorf("%s: the instance runs: %w", in.p.Name(), ErrBusy)
		case n&closed != 0:
			return nil
		}
		if in.state.CompareAndSwap(n, n|running) {
			break
		}
	}
	in.p.forget(in)
	err := in.mem.Close()
	in.leave(closed)
	return err
}

// begin takes the instance and fills its memory.
func (in *Instance) begin(mem []byte) error {
	if !in.state.CompareAndSwap(0, running) {
		return in.refuse()
	}
	return in.load(mem)
}

// load fills the memory of an instance that is taken, and gives it back where
// that fails.
func (in *Instance) load(mem []byte) error {
	if err := in.mem.LoadMem(mem); err != nil {
		in.leave(0)
		return in.p.memoryError(err)
	}
	return nil
}

// refuse says why the instance can't be taken.
func (in *Instance) refuse() error {
	if in.state.Load()&(shutOff|closed) != 0 {
		return in.p.closedError()
	}
	return fmt.Errorf("%s: the instance runs: %w", in.p.Name(), ErrBusy)
}

// end undoes begin.
func (in *Instance) end() {
	in.mem.Reset(in.writes)
	if in.state.Add(-running) != 0 {
		in.tell()
	}
}

// leave ends what took the instance, and changes its state.
func (in *Instance) leave(add int32) {
	if in.state.Add(add-running)&shutOff != 0 {
		in.tell()
	}
}

// tell tells who waits that there won't be another run.
func (in *Instance) tell() { in.once.Do(func() { close(in.over) }) }

// shutOut keeps new runs out.
func (in *Instance) shutOut() { in.state.Or(shutOff) }

// wait returns when the run under way, if there is one, is over. shutOut comes
// first.
func (in *Instance) wait() {
	if in.state.Load()&running != 0 {
		<-in.over
	}
}

// enter runs machine code on plain memory, which is loaded, and reports whether
// the program ended well at once. If not, restMem must follow.
func (in *Instance) enter(mem []byte) bool {
	var r1 uint64
	if len(mem) > 0 {
		r1 = abi.MemBase
	}
	if !in.frame.Enter(r1, uint64(len(mem))) {
		return false
	}
	in.used = in.frame.Used()
	if in.writes.Mem && len(mem) > 0 {
		copy(mem, in.mem.Mem())
	}
	return true
}

// rest ends a run that enter began.
func (in *Instance) rest(mem []byte) (uint64, error) {
	defer in.end()
	return in.restMem(mem)
}

func (in *Instance) restMem(mem []byte) (uint64, error) {
	r0, err := in.execute(context.Background(), 0, 0, true)
	if in.writes.Mem {
		copy(mem, in.mem.Mem())
	}
	return r0, err
}

// whole is a run that isn't entered yet.
func (in *Instance) whole(mem []byte) (uint64, error) {
	defer in.end()
	return in.runMem(context.Background(), mem)
}

// runMem runs on plain memory, which begin or borrow has loaded.
func (in *Instance) runMem(ctx context.Context, mem []byte) (uint64, error) {
	var r1 uint64
	if len(mem) > 0 {
		r1 = abi.MemBase
	}
	r0, err := in.execute(ctx, r1, uint64(len(mem)), false)
	if in.writes.Mem {
		copy(mem, in.mem.Mem())
	}
	return r0, err
}

// runStruct runs on a context structure.
func (in *Instance) runStruct(ctx context.Context, data []byte) (uint64, error) {
	if err := in.mem.LoadCtx(data); err != nil {
		return 0, in.p.memoryError(err)
	}
	r0, err := in.execute(ctx, abi.CtxBase, 0, false)
	if in.writes.Ctx {
		copy(data, in.mem.Ctx())
	}
	return r0, err
}

// runPacket runs on a packet, which begin or borrow has loaded.
func (in *Instance) runPacket(ctx context.Context, pkt []byte) (uint64, []byte, error) {
	var err error
	if in.ctx, err = packetContext(in.ctx[:0], in.p.Type(), pkt); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", in.p.Name(), err)
	}
	if err := in.mem.LoadCtx(in.ctx); err != nil {
		return 0, nil, in.p.memoryError(err)
	}
	r0, err := in.execute(ctx, abi.CtxBase, 0, false)
	return r0, in.mem.Mem(), err
}

// cancelled asks the context of the run.
func (in *Instance) cancelled() error { return in.cancel.Err() }

// execute has the engine run the program, or end a run that was entered, and
// makes an error of its result. withinRun looks for this function on the stack:
// it must not be inlined.
//
//go:noinline
func (in *Instance) execute(ctx context.Context, r1, r2 uint64, entered bool) (uint64, error) {
	if l := in.p.labels; l != nil {
		l.put(ctx)
		defer pprof.SetGoroutineLabels(ctx)
	}
	var check func() error
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return 0, in.runError(&result{Result: abi.Result{Stop: abi.StopCancel, Err: err}})
		}
		in.cancel, check = ctx, in.poll
	}
	if in.bound && !entered {
		if check != nil {
			in.input.Poll = check
			defer func() { in.input.Poll, in.cancel = nil, nil }()
		}
		if in.frame.Enter(r1, r2) {
			in.used = in.frame.Used()
			return in.frame.R0(), nil
		}
	}
	r := in.p.engine.run(in, r1, r2, check)
	in.used = r.Used
	if r.Stop == abi.StopExit {
		return r.R0, nil
	}
	return 0, in.runError(&r)
}

// runError translates the result of a run that ended early.
func (in *Instance) runError(r *result) error {
	src := in.p.src
	e := &RunError{
		Program: in.p.Name(), Offset: r.Slot, Addr: r.Addr, Signal: syscall.Signal(r.signal), Err: r.Cause(),
	}
	if r.Slot >= 0 {
		e.Line = src.Line(r.Slot)
		e.text = src.Program.Text(r.Slot)
		e.around = &around{src, r.Slot}
	}
	return e
}
