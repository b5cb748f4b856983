package bpfjit

import (
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/perf"
)

// DefaultBudget is how many instructions a run may execute where
// [Options.Budget] is zero.
const DefaultBudget = abi.DefaultBudget

type (
	// A HelperFunc implements a BPF helper function in Go. An error that it
	// returns ends the run and is wrapped in its [RunError]. It may allocate,
	// block, panic, and run other programs. Several goroutines may call it
	// at once.
	HelperFunc = abi.HelperFunc
	// Env is a helper function's view of the run that calls it: the guest's
	// memory, its maps, its clock. It is valid until the helper returns.
	Env = abi.Env
	// PerfFiles selects files for perf(1).
	PerfFiles = perf.Files
)

// Files for perf(1), see [Options.Perf].
const (
	PerfMap  = perf.Map  // /tmp/perf-PID.map: names and addresses
	PerfDump = perf.Dump // /tmp/jit-PID.dump: code, lines and times as well
)

// Options say how a program is compiled and what it sees of the world. The
// zero value, and nil, are valid and the safest choice. A program keeps no
// reference to its Options.
type Options struct {
	// Name is used in errors and listings. Empty means the name that the
	// program has in its object, or "program".
	Name string

	// Type says what RunPacket makes of a packet: a struct xdp_md for XDP,
	// a struct __sk_buff for SchedCLS, SocketFilter and their like. Programs
	// of an object know their type.
	Type ebpf.ProgramType

	// Engine selects how the program is executed. The zero value,
	// EngineAuto, takes machine code where it can be had.
	Engine Engine

	// Blinding hides the constants that the program's author chose, so that
	// they don't show up in executable memory. Offsets of loads and stores,
	// shift counts and numbers of helpers stay: see package blind. It changes
	// nothing for the interpreter.
	Blinding bool

	// Budget is the number of instructions that a run may execute; a run
	// that would exceed it ends with ErrBudget. What is counted are the
	// instructions of the author, a 64-bit constant being one. A way through
	// the program is paid for where it begins, at the longest, so a run may
	// end some instructions early. 0 means DefaultBudget, a negative number
	// no limit: then only a context can stop a loop, see RunContext,
	// RunStructContext and RunPacketContext.
	Budget int64

	// Helpers are helper functions that the program may call, in addition
	// to, or instead of, those that bpfjit has itself. A call of any other
	// fails when the program is compiled.
	Helpers map[asm.BuiltinFunc]HelperFunc

	// Space is the memory that the maps and globals of several programs
	// share. nil gives the program, or the collection, one of its own, which
	// is closed with it.
	Space *Space

	// Rand is where the keys of blinding and the place of the code in
	// memory come from. nil means a generator keyed by crypto/rand. Two
	// compilations that read the same bytes give the same code.
	Rand io.Reader

	// Clock is what the program's clock shows, in nanoseconds. nil means the
	// time since the process began, which is what CLOCK_MONOTONIC looks like
	// to a program.
	Clock func() uint64

	// Random gives the program's random numbers. nil means math/rand/v2. Programs that
	// run in several goroutines call it, and Clock, at the same time.
	Random func() uint32

	// CPU is the number of the processor that the program believes to run
	// on.
	CPU uint32

	// Trace receives what the program prints by trace_printk, a line at a
	// time, without prefixes and as it is: control characters too, if the
	// program likes. nil discards it. A run that can't write goes on.
	Trace io.Writer

	// Perf selects files that tell Linux's perf(1) the names of the program's
	// functions in machine code, so that samples in them are told apart:
	// PerfMap, PerfDump, or both. All programs of the process share them,
	// and they stay behind when it ends: see package perf, which says how to
	// use them, too. The main function is called bpf_prog_NAME, others
	// bpf_prog_NAME.FUNCTION. Where the files can't be written the program
	// runs all the same, and [Info.Perf] says why. An interpreted program has
	// nothing to tell. 0 means none.
	Perf PerfFiles

	// Labels has samples of CPU profiles, and goroutines in goroutine
	// profiles, carry the label bpf_program with the program's name while it
	// runs (see runtime/pprof). A run with a context keeps the context's labels
	// beside it. The other methods have none: behind them the goroutine has no
	// labels. It costs a run some 50 ns.
	Labels bool

	// Dump receives the machine code, in the format of the kernel's
	// bpf_jit_enable=2; of an interpreted program there is none. A program whose
	// code can't be written isn't made, whatever the engine: its error wraps the
	// writer's. nil means none.
	Dump io.Writer
}
