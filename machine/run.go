//go:build linux && amd64 && !purego

package machine

import (
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
)

// A Frame is what is to be known before code is entered, kept for many runs: of one
// image on one instance. Its fields belong to this package.
//
//	f.Bind(instance, image, &input)
//	if f.Enter(r1, r2) {
//		// f.R0() and f.Used() say all
//	} else {
//		f.Finish(&result) // calls helpers, which may panic
//	}
//
// Check must have returned nil before. The instance must be a window, and used by
// nobody else during a run; the image must not be freed before the run ends. A
// panic of a helper passes through Finish; then the Frame can be used again.
//
// Its Turn is for who uses the instance from several goroutines. Of the methods
// below only Dash looks at it.
type Frame struct {
	Turn

	// Assembly knows where these are.
	base  uintptr
	entry uintptr
	slice int64 // the first one
	used  int64
	key   uintptr // for Dash
	dirty uint32  // 1: the Turn doesn't end with a Dash

	total int64
	// undealt is what is left of total, beside the slice in R9.
	//
	// Invariant: total = used + slice + undealt.
	undealt int64

	c    *abi.Context
	im   *image.Image
	in   *Input
	inst *cage.Instance
}

// Bind makes the Frame one of an image and an instance, without a key. in is
// read in each run, but for Budget, Entry, Helpers, Arrays and CPU, which Bind
// reads.
func (f *Frame) Bind(i *cage.Instance, im *image.Image, in *Input) {
	c := i.Context()
	if c.HelperStub == 0 {
		c.HelperStub, c.SliceStub = uint64(helperAddr), uint64(sliceAddr)
	}
	f.c, f.base, f.entry = c, uintptr(i.Base()), im.Addr()+uintptr(in.Entry)
	f.total = in.Budget
	if f.total <= 0 {
		f.total = unlimited(f.total)
	}
	f.slice = min(f.total, abi.Slice)
	f.key, f.dirty = 0, 0
	f.im, f.in, f.inst = im, in, i
	bindNative(c, in)
}

// bindNative tells native helpers what the run has.
func bindNative(c *abi.Context, in *Input) {
	var native [abi.NativeHelpers]Native // none
	if in.Helpers != nil {
		native = in.Helpers.native
	}
	for n, code := range native {
		c.Native[n] = uint64(nativeAddrs[code])
	}
	c.Native[abi.NativeHelpers] = uint64(nativeAddrs[0])
	c.CPU = uint64(in.CPU)
	c.Maps = uint64(copy(c.Arrays[:], in.Arrays))
}

// SetKey says that a Dash with that key may enter the code, nothing more being
// needed before it than a Turn; and whether nothing is needed behind it either. No
// Dash may enter if key is 0.
func (f *Frame) SetKey(key uintptr, clean bool) {
	f.key, f.dirty = key, 1
	if clean {
		f.dirty = 0
	}
}

// Enter starts a run and reports whether that is all: whether the program
// ended well without a helper, within its first slice. If not, Finish must
// follow.
func (f *Frame) Enter(r1, r2 uint64) (done bool) {
	enter((*uint64)(unsafe.Pointer(f)), r1, r2)
	if f.c.Exit == abi.ExitDone {
		f.used = f.slice - int64(f.c.Regs[abi.X86R9])
		return true
	}
	return false
}

// R0 returns the program's result, after an Enter that returned true.
func (f *Frame) R0() uint64 { return f.c.Regs[abi.RAX] }

// Used returns what the last run took of the budget.
func (f *Frame) Used() int64 { return f.used }

// Unused makes Used return 0, for a run that didn't begin.
func (f *Frame) Unused() { f.used = 0 }

// Finish goes on behind an Enter that returned false until the run ends, and
// reports that in out. After a Dash that Left it does the same.
func (f *Frame) Finish(out *Result) {
	f.undealt = f.total - f.slice
	f.drive(out)
	// Until here the memory must not go.
	runtime.KeepAlive(f.inst)
	runtime.KeepAlive(f.im)
}

// unlimited returns the budget that one of 0 or less stands for. A program
// can't use up the largest number in a lifetime.
func unlimited(budget int64) int64 {
	if budget == 0 {
		return abi.DefaultBudget
	}
	return math.MaxInt64
}

// drive serves exits until the run ends.
func (f *Frame) drive(out *Result) {
	c := f.c
	calls := uint32(0) // of helpers
	for {
		switch c.Exit {
		case abi.ExitDone:
			f.count()
			out.Result = abi.Result{R0: c.Regs[abi.RAX], Used: f.used, Slot: -1}
			return

		case abi.ExitHelper:
			helper := f.in.Helpers.Lookup(uint32(c.Helper))
			if helper == nil {
				f.stop(out, abi.StopHelper, abi.UnknownHelper(c.Helper))
				return
			}
			r0, err := helper(f.in.Env, c.Regs[abi.RDI], c.Regs[abi.RSI], c.Regs[abi.RDX], c.Regs[abi.RCX], c.Regs[abi.X86R8])
			if err != nil {
				f.stop(out, abi.StopHelper, err)
				return
			}
			// Helpers may take longer than instructions: some calls spend what is
			// left of a slice.
			if calls++; calls%abi.SliceCalls == 0 {
				f.undealt += int64(c.Regs[abi.X86R9])
				c.Regs[abi.X86R9] = 0
			}
			resume(f.base, r0)

		case abi.ExitSlice:
			if stop, err := f.deal(); stop != abi.StopExit {
				f.stop(out, stop, err)
				return
			}
			yield(0)
			resumeAll(f.base)

		case abi.ExitFault:
			if !f.fixUp() {
				f.stop(out, abi.StopFault, nil)
				return
			}
			resumeAll(f.base)

		default:
			panic("BUG: machine: unknown exit")
		}
	}
}

// count finds out what was used.
func (f *Frame) count() { f.used = f.total - f.undealt - int64(f.c.Regs[abi.X86R9]) }

// deal fills the slice for a charge that it fell short of, and returns
// StopExit, or says how the run ends; then the charge isn't taken.
func (f *Frame) deal() (stop abi.Stop, err error) {
	n := int64(uint32(f.c.Regs[abi.X86R11]))
	slice := int64(f.c.Regs[abi.X86R9]) + n
	left := f.undealt + slice
	if left < n {
		stop = abi.StopBudget
	} else if f.in.Poll != nil {
		if err = f.in.Poll(); err != nil {
			stop = abi.StopCancel
		}
	}
	if stop == abi.StopExit {
		slice = min(left, max(abi.Slice, n))
		f.undealt = left - slice
		slice -= n
	}
	f.c.Regs[abi.X86R9] = uint64(slice)
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
func (f *Frame) fixUp() bool {
	c := f.c
	if s := unix.Signal(c.Signal); s != unix.SIGSEGV && s != unix.SIGBUS {
		return false
	}
	pc, ok := f.im.Offset(uintptr(c.RIP))
	if !ok {
		return false
	}
	e, ok := f.im.Lookup(pc)
	if !ok {
		return false
	}
	if reg, ok := e.Clear(); ok {
		c.Regs[reg] = 0
	}
	c.RIP += uint64(e.Len())
	return true
}

// stop reports where the run is.
func (f *Frame) stop(out *Result, stop abi.Stop, err error) {
	c := f.c
	f.count()
	*out = Result{Result: abi.Result{Used: f.used, Stop: stop, Slot: -1, Err: err}}
	for i := range out.R {
		out.R[i] = c.Regs[abi.Native[i]]
	}
	out.PC, _ = f.im.Offset(uintptr(c.RIP))
	switch stop {
	case abi.StopFault:
		f.fault(out)
		return
	case abi.StopHelper:
		out.R[0] = 0
	}
	out.PC-- // from the return address into the call
}

// reach is how far outside of the window an access can be.
const reach = abi.GuardSize

func (f *Frame) fault(out *Result) {
	c := f.c
	out.Signal, out.Code = int(c.Signal), int(int32(c.Code))
	out.R11 = uint32(c.Regs[abi.X86R11])
	switch unix.Signal(c.Signal) {
	case unix.SIGSEGV, unix.SIGBUS:
		out.Addr = int64(c.FaultAddr - uint64(f.base))
		out.HasAddr = out.Addr >= -reach && out.Addr < abi.WindowSize+reach
		if !out.HasAddr {
			out.Addr = 0
		}
	case unix.SIGTRAP:
		out.PC-- // from behind INT3 to it
	}
}
