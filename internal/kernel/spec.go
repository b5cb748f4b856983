package kernel

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/bpfjit/bpfjit/abi"
)

// Type is a program type, as bpf(2) numbers them.
type Type uint32

// Program types that the package's users need.
const (
	SocketFilter  Type = 1
	Kprobe        Type = 2
	SchedCLS      Type = 3
	Tracepoint    Type = 5
	XDP           Type = 6
	PerfEvent     Type = 7
	RawTracepoint Type = 17
	Tracing       Type = 26
	Syscall       Type = 31
)

// Attach types that bpf(2) wants to know when a program is loaded.
const (
	AttachNone  uint32 = 0
	AttachRawTP uint32 = 23 // BPF_TRACE_RAW_TP: a tracepoint with BTF
)

// Flags of BPF_PROG_LOAD.
const (
	FlagStrictAlignment uint32 = 1 << 0
	FlagAnyAlignment    uint32 = 1 << 1
	FlagSleepable       uint32 = 1 << 4
)

// Spec describes a program to load.
type Spec struct {
	Type Type
	// Insns is the program as its author writes it: map references hold file
	// descriptors, calls of helpers their number.
	Insns []abi.Insn
	// Name of the program, at most 15 letters, digits, '_' or '.'. Empty: none.
	Name string
	// License as the verifier reads it. Empty: "Dual MIT/GPL", with which
	// every helper may be called.
	License string
	// Flags of BPF_PROG_LOAD.
	Flags uint32
	// AttachType is the expected attach type. 0 suits most types.
	AttachType uint32
	// AttachTo is a BTF type ID of the kernel (see TypeID), which programs of
	// type Tracing need. 0: none.
	AttachTo uint32
	// Debug attaches hand-made BTF: a name for each function (see FuncName)
	// and a line for each instruction. It is what makes Function.Offsets
	// known, and what callbacks (ldimm64 of a function) need.
	Debug bool
	// ExceptionCallback is the slot of a function for bpf_throw to call, or 0:
	// the default. It needs Debug.
	ExceptionCallback int
	// Globals names the slots of functions to be verified on their own. It
	// needs Debug.
	Globals []int
	// LogLevel of the verifier. 0: the log is asked for only after a failure.
	LogLevel uint32
	// Quiet leaves out the second try that fetches the log of a failure.
	Quiet bool
}

// JITErrno is what BPF_PROG_LOAD returns when the verifier accepted a program
// and the JIT did not, and in a few other cases (ENOTSUPP, which has no name
// in user space). LoadError.ByJIT tells them apart.
const JITErrno = syscall.Errno(524)

// ErrUnavailable reports that the kernel can't be asked: another platform, no
// permission, or the JIT is off. It wraps errors.ErrUnsupported.
var ErrUnavailable = fmt.Errorf("kernel: not available: %w", errors.ErrUnsupported)

// ErrDangerous reports a program that was not loaded, because the kernel's
// constant blinding could wrap one of its jumps and crash the machine.
var ErrDangerous = errors.New("kernel: backward jump too near -32768 to be loaded while bpf_jit_harden is set")

// LoadError reports that BPF_PROG_LOAD failed.
type LoadError struct {
	Errno syscall.Errno
	// Log is the verifier's, empty if it had nothing to say.
	Log string
}

// Error is short; %+v adds the verifier's whole log.
func (e *LoadError) Error() string {
	msg := e.Errno.Error()
	if e.Errno == JITErrno {
		msg = "not supported (errno 524)"
	}
	if l := lastLine(e.Log); l != "" {
		msg += ": " + l
	} else if e.ByJIT() {
		msg += ": the JIT refused it"
	}
	return "kernel: load: " + msg
}

// ByJIT says that the verifier had nothing against the program, but the JIT
// had. Without a log (Spec.Quiet) it is a guess.
func (e *LoadError) ByJIT() bool { return e.Errno == JITErrno && lastLine(e.Log) == "" }

func (e *LoadError) Unwrap() error { return e.Errno }

// Format implements fmt.Formatter: %+v prints the verifier's whole log.
func (e *LoadError) Format(f fmt.State, verb rune) {
	io.WriteString(f, e.Error())
	if verb == 'v' && f.Flag('+') && e.Log != "" {
		io.WriteString(f, "\n"+e.Log)
	}
}

// lastLine returns the line of a verifier's log that says what is wrong: the
// last one, statistics left out.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n\x00"), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(lines[i])
		switch {
		case l == "", strings.HasPrefix(l, "processed "), strings.HasPrefix(l, "verification time"),
			strings.HasPrefix(l, "stack depth "):
		default:
			return l
		}
	}
	return ""
}

// RunOptions are the inputs of one Program.Run.
type RunOptions struct {
	// Data is the packet; it is not changed. XDP and SchedCLS need 14 bytes
	// or more.
	Data []byte
	// Ctx is the context, such as the arguments of a raw tracepoint, or the
	// memory of a program of type Syscall. It is not changed.
	Ctx []byte
	// CtxOut asks for the context as the program left it, where the type
	// supports that.
	CtxOut bool
	// Repeat is the number of runs, one after the other on the same packet.
	// 0: one.
	Repeat uint32
	// Room is by how many bytes the packet may grow. 0: 256.
	Room int
}

// Result is what a run gave.
type Result struct {
	// Return is R0's lower half; bpf(2) doesn't tell the upper one.
	Return uint32
	// Data and Ctx are the packet and the context afterwards.
	Data, Ctx []byte
	// Nanoseconds is the mean duration of a run, without the system call.
	Nanoseconds uint32
}

// MapType is a map type, as bpf(2) numbers them.
type MapType uint32

// Map types that the package's users need.
const (
	HashMap        MapType = 1
	ArrayMap       MapType = 2
	ProgArray      MapType = 3
	PerCPUArrayMap MapType = 6
	ArenaMap       MapType = 33
)

// Flags of BPF_MAP_CREATE.
const (
	MapFlagMmapable uint32 = 1 << 10
)

// MapSpec describes a map to create.
type MapSpec struct {
	Type MapType
	// Sizes in bytes.
	KeySize, ValueSize uint32
	MaxEntries         uint32
	Flags              uint32
	// Extra is the user address of an arena; else 0.
	Extra uint64
}

// FuncName is the name that Spec.Debug gives the function at a slot.
func FuncName(slot int) string {
	if slot == 0 {
		return "main"
	}
	return fmt.Sprintf("f%d", slot)
}
