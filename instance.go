package bpfjit

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
)

// Instance is a Program together with memory of its own to run in: stack,
// context, packet. It spares a run the way through the pools. One goroutine
// at a time may use it; a second one gets ErrBusy. Maps and globals are shared
// with all other instances of the Space.
type Instance struct {
	p    *Program
	mem  *cage.Instance
	env  helpers.Env // what helper functions see of a run
	used int64
	ctx  []byte // scratch: a context structure

	busy   atomic.Bool
	closed bool // guarded by busy
}

// newInstance returns an instance that has no memory yet.
func newInstance(p *Program) *Instance {
	s := &p.settings
	return &Instance{p: p, env: helpers.Env{
		Maps: p.space.maps(), Clock: s.Clock, Rand: s.Random, Processor: s.CPU, Printer: s.print,
	}}
}

// use gives the instance its memory.
func (in *Instance) use(m *cage.Instance) { in.mem, in.env.Memory = m, m }

// Run is [Program.Run] in this instance.
func (in *Instance) Run(mem []byte) (r0 uint64, err error) {
	return in.RunContext(context.Background(), mem)
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
	if !in.busy.CompareAndSwap(false, true) {
		return fmt.Errorf("%s: the instance runs: %w", in.p.Name(), ErrBusy)
	}
	defer in.busy.Store(false)
	if in.closed {
		return nil
	}
	in.closed = true
	return in.mem.Close()
}

// begin takes the instance, lets a run in, and fills the memory.
func (in *Instance) begin(mem []byte) error {
	if !in.busy.CompareAndSwap(false, true) {
		return fmt.Errorf("%s: the instance runs: %w", in.p.Name(), ErrBusy)
	}
	if in.closed || !in.p.gate.enter() {
		in.busy.Store(false)
		return in.p.closedError()
	}
	if err := in.mem.LoadMem(mem); err != nil {
		in.p.gate.leave()
		in.busy.Store(false)
		return in.p.memoryError(err)
	}
	return nil
}

// end undoes begin.
func (in *Instance) end() {
	in.mem.Reset(in.p.writes)
	in.p.gate.leave()
	in.busy.Store(false)
}

// runMem runs on plain memory, which begin or borrow has loaded.
func (in *Instance) runMem(ctx context.Context, mem []byte) (uint64, error) {
	var r1 uint64
	if len(mem) > 0 {
		r1 = abi.MemBase
	}
	r0, err := in.execute(ctx, r1, uint64(len(mem)))
	if in.p.writes.Mem {
		copy(mem, in.mem.Mem())
	}
	return r0, err
}

// runStruct runs on a context structure.
func (in *Instance) runStruct(ctx context.Context, data []byte) (uint64, error) {
	if err := in.mem.LoadCtx(data); err != nil {
		return 0, in.p.memoryError(err)
	}
	r0, err := in.execute(ctx, abi.CtxBase, 0)
	if in.p.writes.Ctx {
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
	r0, err := in.execute(ctx, abi.CtxBase, 0)
	return r0, in.mem.Mem(), err
}

// execute has the engine run the program and makes an error of its result.
// withinRun looks for this function on the stack: it must not be inlined.
//
//go:noinline
func (in *Instance) execute(ctx context.Context, r1, r2 uint64) (uint64, error) {
	var check func() error
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return 0, in.runError(&result{Result: abi.Result{Stop: abi.StopCancel, Err: err}})
		}
		check = ctx.Err
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
