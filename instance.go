package bpfjit

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
	"github.com/bpfjit/bpfjit/machine"
)

// Instance is a Program together with memory of its own to run in: stack,
// context, packet. It spares a run the way through the pools. One goroutine
// at a time may use it; a second one gets ErrBusy. A goroutine that uses it over
// and over gets in faster than several that take turns. Maps and globals are
// shared with all other instances of the Space.
type Instance struct {
	// frame is bound if machine code is run. Its Turn is what keeps two users of
	// the instance apart, and guards everything below.
	frame machine.Frame
	// p never changes in an instance of NewInstance. In others it is the program
	// that ran last, or nil. A program's Close reads it without the Turn.
	p      atomic.Pointer[Program]
	mem    *cage.Instance
	native bool // Run may enter frame at once: machine code, without labels
	bound  bool // frame is bound: machine code is run
	tenure tenure
	closed atomic.Bool // mem is gone

	used  int64 // by the interpreter
	input machine.Input
	env   helpers.Env // what helper functions see of a run

	poll   func() error    // cancelled, made once
	cancel context.Context // of the run under way, if it can be cancelled
	ctx    []byte          // scratch: a context structure
}

// tenure is where an instance belongs.
type tenure uint8

const (
	own      tenure = iota // to the caller of NewInstance
	resident               // to the Space, see residents
	lent                   // to the pool of the Space's memory; the Turn doesn't matter
)

// newInstance returns an instance of no program yet.
func newInstance(m *cage.Instance, t tenure) *Instance {
	in := &Instance{mem: m, tenure: t}
	in.poll = in.cancelled
	return in
}

// bind makes the instance one of a program.
func (in *Instance) bind(p *Program) {
	s := &p.settings
	in.p.Store(p)
	in.native = false
	in.env = helpers.Env{
		Memory: in.mem, Maps: p.space.maps(), Clock: s.Clock, Rand: s.Random, Processor: s.CPU, Printer: s.print,
	}
	if e, ok := p.engine.(*native); ok {
		in.input = machine.Input{
			Budget: e.budget, Helpers: e.helpers, Env: &in.env, Arrays: in.env.Maps.Arrays(), CPU: in.env.Processor,
		}
		in.frame.Bind(in.mem, e.image, &in.input)
		in.native, in.bound = p.labels == nil, true
	}
}

// Run is [Program.Run] in this instance.
func (in *Instance) Run(mem []byte) (r0 uint64, err error) {
	p := in.p.Load()
	if len(mem) == 0 {
		r0, way := in.frame.Dash(p.key)
		if way == machine.Over {
			return r0, nil
		}
		return in.follow(p, r0, way)
	}
	if err := in.begin(p, mem); err != nil {
		return 0, err
	}
	return in.run(mem)
}

// follow does what remains to be done behind a Dash that isn't Over.
func (in *Instance) follow(p *Program, r0 uint64, way machine.Way) (uint64, error) {
	switch way {
	case machine.Refused:
		return 0, in.refuse(p)
	case machine.Taken:
		if err := in.settle(p, nil); err != nil {
			return 0, err
		}
		return in.run(nil)
	case machine.Left:
		return in.rest(nil)
	default: // Ended
		in.end()
		return r0, nil
	}
}

// RunContext is [Program.RunContext] in this instance.
func (in *Instance) RunContext(ctx context.Context, mem []byte) (r0 uint64, err error) {
	if err := in.begin(in.p.Load(), mem); err != nil {
		return 0, err
	}
	defer in.end()
	return in.runMem(ctx, mem)
}

// RunStruct is [Program.RunStruct] in this instance.
func (in *Instance) RunStruct(data []byte) (r0 uint64, err error) {
	return in.RunStructContext(context.Background(), data)
}

// RunStructContext is [Program.RunStructContext] in this instance.
func (in *Instance) RunStructContext(ctx context.Context, data []byte) (r0 uint64, err error) {
	if err := in.begin(in.p.Load(), nil); err != nil {
		return 0, err
	}
	defer in.end()
	return in.runStruct(ctx, data)
}

// RunPacket is [Program.RunPacket] in this instance. out is the instance's
// own memory: it is valid until the instance is used again.
func (in *Instance) RunPacket(pkt []byte) (r0 uint64, out []byte, err error) {
	return in.RunPacketContext(context.Background(), pkt)
}

// RunPacketContext is [Program.RunPacketContext] in this instance. out is as
// RunPacket has it.
func (in *Instance) RunPacketContext(ctx context.Context, pkt []byte) (r0 uint64, out []byte, err error) {
	if err := in.begin(in.p.Load(), pkt); err != nil {
		return 0, nil, err
	}
	defer in.end()
	return in.runPacket(ctx, pkt)
}

// Used returns how much of its budget the last run used: an upper bound on the
// instructions that it executed, the same in every engine.
func (in *Instance) Used() int64 {
	if in.bound {
		return in.frame.Used()
	}
	return in.used
}

// Close gives the instance's memory back. Closing again does nothing; closing
// it while it runs is an error that wraps ErrBusy, unless the program is being
// closed, which waits for that run: then this does, too.
func (in *Instance) Close() error {
	p := in.p.Load()
	if !in.frame.Try() {
		if !p.closed.Load() || withinRun() {
			return fmt.Errorf("%s: the instance runs: %w", p.Name(), ErrBusy)
		}
		in.frame.Wait()
	}
	defer in.frame.End()
	p.forget(in)
	return in.discard()
}

// discard gives the memory back. The caller has the Turn.
func (in *Instance) discard() error {
	if in.closed.Swap(true) {
		return nil
	}
	in.frame.SetKey(0, false)
	return in.mem.Close()
}

// begin takes the instance for a run of p and fills its memory.
func (in *Instance) begin(p *Program, mem []byte) error {
	if !in.frame.Try() {
		return in.refuse(p)
	}
	return in.settle(p, mem)
}

// refuse says why the instance can't be taken.
func (in *Instance) refuse(p *Program) error {
	if p.closed.Load() || in.closed.Load() {
		return p.closedError()
	}
	return fmt.Errorf("%s: the instance runs: %w", p.Name(), ErrBusy)
}

// settle makes an instance that is taken ready for a run of p, or gives it back.
func (in *Instance) settle(p *Program, mem []byte) error {
	if in.closed.Load() {
		in.frame.End()
		return p.closedError()
	}
	if in.p.Load() != p {
		in.bind(p)
	}
	// The Close of p sets closed before it looks for instances that are p's. So
	// it sees this one, or it is seen here.
	if p.closed.Load() {
		in.end()
		return p.closedError()
	}
	if len(mem) != 0 || in.mem.HasMem() {
		if err := in.mem.LoadMem(mem); err != nil {
			in.end()
			return p.memoryError(err)
		}
	}
	if in.bound && in.tenure != lent {
		key := p.key
		if !in.native || in.mem.HasMem() { // which must go before a run without
			key = 0
		}
		in.frame.SetKey(key, p.writes == cage.Writes{})
	}
	return nil
}

// end undoes settle, and gives the instance back.
func (in *Instance) end() {
	p := in.p.Load()
	switch in.tenure {
	case own:
		in.mem.Reset(p.writes)
		in.frame.End()
	case resident:
		in.mem.Idle(p.writes)
		in.frame.End()
	case lent:
		p.space.mem.Put(in.mem, p.writes)
		p.gate.leave()
	}
}

// release makes the instance nobody's as soon as no run of p is under way in it.
func (in *Instance) release(p *Program) {
	// Who has the Turn may be about to make it another program's.
	for pause := time.Microsecond; in.p.Load() == p; pause = min(2*pause, time.Millisecond) {
		if in.frame.Try() {
			if in.p.CompareAndSwap(p, nil) {
				in.frame.SetKey(0, false)
			}
			in.frame.End()
			return
		}
		time.Sleep(pause)
	}
}

// shutOut returns when no run is under way in an instance of NewInstance whose
// program is closed. Later ones will see that it is.
func (in *Instance) shutOut() {
	in.frame.Wait()
	defer in.frame.End()
	in.frame.SetKey(0, false)
}

// run runs on plain memory, which is loaded, and ends.
func (in *Instance) run(mem []byte) (uint64, error) {
	if !in.native {
		return in.whole(mem)
	}
	if !in.enter(mem) {
		return in.rest(mem)
	}
	r0 := in.frame.R0()
	in.end()
	return r0, nil
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
	if in.p.Load().writes.Mem && len(mem) > 0 {
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
	if in.p.Load().writes.Mem {
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
	if in.p.Load().writes.Mem {
		copy(mem, in.mem.Mem())
	}
	return r0, err
}

// runStruct runs on a context structure.
func (in *Instance) runStruct(ctx context.Context, data []byte) (uint64, error) {
	if err := in.mem.LoadCtx(data); err != nil {
		return 0, in.p.Load().memoryError(err)
	}
	r0, err := in.execute(ctx, abi.CtxBase, 0, false)
	if in.p.Load().writes.Ctx {
		copy(data, in.mem.Ctx())
	}
	return r0, err
}

// runPacket runs on a packet, which begin or borrow has loaded.
func (in *Instance) runPacket(ctx context.Context, pkt []byte) (uint64, []byte, error) {
	var err error
	if in.ctx, err = packetContext(in.ctx[:0], in.p.Load().Type(), pkt); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", in.p.Load().Name(), err)
	}
	if err := in.mem.LoadCtx(in.ctx); err != nil {
		return 0, nil, in.p.Load().memoryError(err)
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
	if l := in.p.Load().labels; l != nil {
		l.put(ctx)
		defer pprof.SetGoroutineLabels(ctx)
	}
	var check func() error
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			in.unused()
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
			return in.frame.R0(), nil
		}
	}
	r := in.p.Load().engine.run(in, r1, r2, check)
	in.used = r.Used
	if r.Stop == abi.StopExit {
		return r.R0, nil
	}
	return 0, in.runError(&r)
}

// unused makes Used return 0.
func (in *Instance) unused() {
	in.used = 0
	if in.bound {
		in.frame.Unused()
	}
}

// runError translates the result of a run that ended early.
func (in *Instance) runError(r *result) error {
	p := in.p.Load()
	src := p.src
	e := &RunError{
		Program: p.Name(), Offset: r.Slot, Addr: r.Addr, Signal: syscall.Signal(r.signal), Err: r.Cause(),
	}
	if r.Slot >= 0 {
		e.Line = src.Line(r.Slot)
		e.text = src.Program.Text(r.Slot)
		e.around = &around{src, r.Slot}
	}
	return e
}
