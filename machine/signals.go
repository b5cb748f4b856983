//go:build linux && amd64 && !purego

package machine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var helperAddr, sliceAddr, faultAddr, sampleAddr, exitAddr, lookupAddr, cpuAddr = addresses()

// nativeAddrs are where helperStub goes on, by the native code.
var nativeAddrs = [...]uintptr{0: exitAddr, NativeLookup: lookupAddr, NativeCPU: cpuAddr}

// previous are the handlers that ours chain to, by signal. Assembly reads it.
var previous [65]uintptr

// faults are the signals that the processor raises on behalf of code. They
// must be hooked for code to run.
var faults = [...]unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP}

// samples are signals whose handlers in Go look at the interrupted stack:
// the profiler's, and those that end a program with a dump of all stacks.
// Code runs without these hooks too; they may be lost to os/signal.
var samples = [...]unix.Signal{unix.SIGPROF, unix.SIGQUIT, unix.SIGABRT}

// HookError reports a fault signal that leads elsewhere.
type HookError struct {
	Signal unix.Signal
	Reason string
}

func (e *HookError) Error() string {
	return fmt.Sprintf("machine: handler of %s: %s", unix.SignalName(e.Signal), e.Reason)
}

// Available returns nil if generated code can run in this process, or why it
// can't. It changes nothing.
func Available() error {
	if threadFeatures()&shadowStack != 0 {
		return errShadowStack
	}
	return nil
}

// A shadow stack knows only one stack a thread.
var errShadowStack = errors.New("machine: threads have shadow stacks")

// threadFeatures returns the features of control-flow enforcement that threads
// have, as ARCH_SHSTK_STATUS of arch_prctl(2) tells. Kernels that don't know it
// have none. It is a variable for the test, as few machines have any.
var threadFeatures = func() (features uint64) {
	const archShadowStackStatus = 0x5005
	_, _, e := unix.RawSyscall(unix.SYS_ARCH_PRCTL, archShadowStackStatus, uintptr(unsafe.Pointer(&features)), 0)
	if e != 0 {
		return 0
	}
	return features
}

const shadowStack = 1 // ARCH_SHSTK_SHSTK

var hooks struct {
	sync.Mutex
	installed bool
	checked   atomic.Int64 // when Check returned nil last, in ns
}

// Check makes sure that faults of generated code lead here. It must return nil
// before the first Run, and should be called whenever code is published:
// something else may have changed the handlers. It costs a system call a
// signal.
//
// The error is what Available returns, an os.SyscallError, or a *HookError
// if a handler was changed by somebody unknown. Putting ours before it again
// could make two handlers call each other for ever.
func Check() error {
	hooks.Lock()
	defer hooks.Unlock()
	err := check()
	if err == nil {
		hooks.checked.Store(int64(time.Since(epoch)))
	} else {
		hooks.checked.Store(never)
	}
	return err
}

// Recheck is Check, unless that returned nil less than 10 ms ago. It is for
// those who publish many small programs: asking takes longer than compiling one.
func Recheck() error {
	if int64(time.Since(epoch)) < hooks.checked.Load()+int64(recheckAfter) {
		return nil
	}
	return Check()
}

const recheckAfter = 10 * time.Millisecond

// epoch is what hooks.checked counts from.
var epoch = time.Now()

// never is a time so long ago that a Check is due.
const never = math.MinInt64 / 2

func init() { hooks.checked.Store(never) }

// check is Check with hooks locked.
func check() error {
	if !hooks.installed {
		if err := Available(); err != nil {
			return err
		}
	}
	for _, s := range faults {
		if err := hookFault(s); err != nil {
			return err
		}
	}
	if !hooks.installed {
		allowOwners()
	}
	hooks.installed = true
	for _, s := range samples {
		if err := hookSample(s); err != nil {
			return err
		}
	}
	return nil
}

func hookFault(s unix.Signal) error {
	var a action
	if err := getAction(s, &a); err != nil {
		return err
	}
	switch {
	case a.handler == faultAddr:
		return nil
	case a.handler <= ignored:
		return &HookError{Signal: s, Reason: "Go has none"}
	case previous[s] != 0 && a.handler != previous[s]:
		return &HookError{Signal: s, Reason: "changed by somebody else"}
	}
	return hook(s, &a, faultAddr)
}

// hookSample hooks s if Go handles it now. All signals of Go have one handler.
func hookSample(s unix.Signal) error {
	var a action
	if err := getAction(s, &a); err != nil {
		return err
	}
	if a.handler != previous[unix.SIGSEGV] {
		return nil
	}
	return hook(s, &a, sampleAddr)
}

// hook puts a handler before that of a. It keeps a's flags, mask and restorer,
// so the handler that is chained to finds what it asked for.
func hook(s unix.Signal, a *action, handler uintptr) error {
	// The handler may run as soon as it is installed.
	atomic.StoreUintptr(&previous[s], a.handler)
	a.handler = handler
	a.flags |= saSiginfo | saOnStack
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(a)), 0, maskSize, 0, 0); e != 0 {
		return os.NewSyscallError("rt_sigaction", e)
	}
	return nil
}

// action is the kernel's struct sigaction, see rt_sigaction(2).
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	maskSize = 8 // bytes of action.mask

	ignored = 1 // the handlers 0 and 1 are SIG_DFL and SIG_IGN

	saSiginfo = 0x4
	saOnStack = 0x08000000
)

func getAction(s unix.Signal, a *action) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(a)), maskSize, 0, 0); e != 0 {
		return os.NewSyscallError("rt_sigaction", e)
	}
	return nil
}
