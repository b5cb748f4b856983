//go:build linux && amd64 && !purego

package machine

import (
	"math"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
)

// Run runs an image on an instance, which must be a window and used by nobody
// else meanwhile, and reports how that ended in out. Check must have returned
// nil before, and the image must not be freed before Run returns.
//
// The error is nil or ErrBusy; then nothing ran and out is as it was. A panic
// of a helper passes through Run; the instance can be used again.
func Run(i *cage.Instance, im *image.Image, in *Input, out *Result) error {
	c := i.Context()
	if c.Busy != 0 {
		return ErrBusy
	}
	if c.HelperStub == 0 {
		c.HelperStub, c.SliceStub = uint64(helperAddr), uint64(sliceAddr)
	}
	total := in.Budget
	if total <= 0 {
		total = unlimited(total)
	}
	slice := min(total, abi.Slice)
	base := uintptr(i.Base())

	c.Busy = 1
	enter(base, im.Addr()+uintptr(in.Entry), in.R1, in.R2, slice)
	if c.Exit == abi.ExitDone {
		c.Busy = 0
		out.Result = abi.Result{R0: c.Regs[abi.RAX], Used: slice - int64(c.Regs[abi.X86R9]), Slot: -1}
	} else {
		r := run{c: c, base: base, im: im, in: in, total: total, undealt: total - slice}
		r.drive(out)
	}
	// Until here the memory must not go.
	runtime.KeepAlive(i)
	runtime.KeepAlive(im)
	return nil
}

// unlimited returns the budget that one of 0 or less stands for. A program
// can't use up the largest number in a lifetime.
func unlimited(budget int64) int64 {
	if budget == 0 {
		return abi.DefaultBudget
	}
	return math.MaxInt64
}

// run is the state of the driver beside the Context.
//
// Invariant: total = used + slice + undealt, where the slice is in R9.
type run struct {
	c       *abi.Context
	base    uintptr
	im      *image.Image
	in      *Input
	total   int64
	undealt int64
}

// drive serves exits until the run ends.
func (r *run) drive(out *Result) {
	c := r.c
	// A helper may panic, or end the goroutine.
	defer func() { c.Busy = 0 }()
	for {
		switch c.Exit {
		case abi.ExitDone:
			out.Result = abi.Result{R0: c.Regs[abi.RAX], Used: r.used(), Slot: -1}
			return

		case abi.ExitHelper:
			f := r.in.Helpers.Lookup(uint32(c.Helper))
			if f == nil {
				r.stop(out, abi.StopHelper, abi.UnknownHelper(c.Helper))
				return
			}
			r0, err := f(r.in.Env, c.Regs[abi.RDI], c.Regs[abi.RSI], c.Regs[abi.RDX], c.Regs[abi.RCX], c.Regs[abi.X86R8])
			if err != nil {
				r.stop(out, abi.StopHelper, err)
				return
			}
			resume(r.base, r0)

		case abi.ExitSlice:
			if stop, err := r.deal(); stop != abi.StopExit {
				r.stop(out, stop, err)
				return
			}
			yield(0)
			resumeAll(r.base)

		case abi.ExitFault:
			if !r.fixUp() {
				r.stop(out, abi.StopFault, nil)
				return
			}
			resumeAll(r.base)

		default:
			panic("BUG: machine: unknown exit")
		}
	}
}

// deal fills the slice for a charge that it fell short of, and returns
// StopExit, or says how the run ends; then the charge isn't taken.
func (r *run) deal() (stop abi.Stop, err error) {
	n := int64(uint32(r.c.Regs[abi.X86R11]))
	slice := int64(r.c.Regs[abi.X86R9]) + n
	left := r.undealt + slice
	if left < n {
		stop = abi.StopBudget
	} else if r.in.Poll != nil {
		if err = r.in.Poll(); err != nil {
			stop = abi.StopCancel
		}
	}
	if stop == abi.StopExit {
		slice = min(left, max(abi.Slice, n))
		r.undealt = left - slice
		slice -= n
	}
	r.c.Regs[abi.X86R9] = uint64(slice)
	return stop, err
}

// yield lets the scheduler stop the goroutine, for the collector or for
// another one. What does it is the check in the prologue of every function
// whose frame is not small. runtime.Gosched is no substitute: it ignores the
// collector's wish to stop this very goroutine, and starves it.
//
//go:noinline
func yield(i int) byte {
	var b [512]byte
	b[i&511] = 1
	return b[(i+1)&511]
}

// fixUp goes on behind a load that may fault, its register cleared.
func (r *run) fixUp() bool {
	c := r.c
	if s := unix.Signal(c.Signal); s != unix.SIGSEGV && s != unix.SIGBUS {
		return false
	}
	pc, ok := r.im.Offset(uintptr(c.RIP))
	if !ok {
		return false
	}
	e, ok := r.im.Lookup(pc)
	if !ok {
		return false
	}
	if reg, ok := e.Clear(); ok {
		c.Regs[reg] = 0
	}
	c.RIP += uint64(e.Len())
	return true
}

// used returns what was taken of the budget.
func (r *run) used() int64 { return r.total - r.undealt - int64(r.c.Regs[abi.X86R9]) }

// stop reports where the run is.
func (r *run) stop(out *Result, stop abi.Stop, err error) {
	c := r.c
	*out = Result{Result: abi.Result{Used: r.used(), Stop: stop, Slot: -1, Err: err}}
	for i := range out.R {
		out.R[i] = c.Regs[abi.Native[i]]
	}
	out.PC, _ = r.im.Offset(uintptr(c.RIP))
	switch stop {
	case abi.StopFault:
		r.fault(out)
		return
	case abi.StopHelper:
		out.R[0] = 0
	}
	out.PC-- // from the return address into the call
}

// reach is how far outside of the window an access can be.
const reach = abi.GuardSize

func (r *run) fault(out *Result) {
	c := r.c
	out.Signal, out.Code = int(c.Signal), int(int32(c.Code))
	switch unix.Signal(c.Signal) {
	case unix.SIGSEGV, unix.SIGBUS:
		out.Addr = int64(c.FaultAddr - uint64(r.base))
		out.HasAddr = out.Addr >= -reach && out.Addr < abi.WindowSize+reach
		if !out.HasAddr {
			out.Addr = 0
		}
	case unix.SIGTRAP:
		out.PC-- // from behind INT3 to it
	}
}
