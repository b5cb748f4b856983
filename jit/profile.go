package jit

import (
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// Profile holds what the code depends on besides the instructions and the
// function: the processor, and the configuration and addresses of a kernel.
type Profile struct {
	// Rows selects the table of instructions.
	Rows tables.Profile
	// ShortJumpMax is the longest distance forward, in bytes, that a jump of
	// two bytes is used for. A pair of jumps can alternate for ever where it
	// is more than 123.
	ShortJumpMax int32
	// PadFrom is the pass from which on jumps that get shorter are padded to
	// their old length; 0 is never.
	PadFrom int
	// ReturnThunk makes functions end in a jump to the kernel's return thunk
	// instead of a return.
	ReturnThunk bool
	// StraightLine adds a trap behind returns, against straight-line
	// speculation.
	StraightLine bool
	// IBT puts endbr64 at the entry and behind the tail-call entry.
	IBT bool
	// Indirect is how tail calls jump through rcx.
	Indirect IndirectJump
	// OldPrologue is the prologue of Linux 5.13.
	OldPrologue bool

	Percpu    int32  // offset of this_cpu_off from gs, in bytes
	Vsyscall  uint64 // address of the vsyscall page
	AddrLimit uint64 // TASK_SIZE_MAX: user addresses are below

	// Offsets of fields, in bytes, that tail calls read.
	MapMaxEntries int8  // of an array map: how many elements
	ArrayPtrs     int32 // of an array map: its first element
	ProgFunc      int8  // of a program: where its code is
}

// IndirectJump is a form of the indirect jump.
type IndirectJump uint8

const (
	// JumpThunk jumps to a thunk of the kernel (retpoline or ITS).
	JumpThunk IndirectJump = iota
	// JumpFence is lfence and a plain indirect jump.
	JumpFence
	// JumpPlain is a plain indirect jump.
	JumpPlain
)

// Linux618 is what Linux 6.18 does on a processor with BMI2, with return
// thunks and retpolines. Addresses that differ from boot to boot are zero.
var Linux618 = Profile{
	Rows:          tables.Kernel,
	ShortJumpMax:  123,
	PadFrom:       15,
	ReturnThunk:   true,
	Vsyscall:      0xffffffffff600000,
	AddrLimit:     0x7ffffffff000,
	MapMaxEntries: 0x4c,
	ArrayPtrs:     0x138,
	ProgFunc:      0x48,
}

// Linux513 has the shape of Linux 5.13: another prologue, short jumps up to
// 127 bytes, plain returns, shifts through rcx, and only the instructions of
// that time. Tail calls, and calls in functions that they reach, are missing:
// that version counted in a way of its own.
var Linux513 = Profile{
	Rows:         tables.V513,
	ShortJumpMax: 127,
	PadFrom:      15,
	OldPrologue:  true,
	Indirect:     JumpPlain,
}

// Cage and CageNoBMI2 make code that runs inside a window (package cage).
var (
	Cage       = Profile{Rows: tables.Cage, ShortJumpMax: 123, PadFrom: 15}
	CageNoBMI2 = Profile{Rows: tables.CageNoBMI2, ShortJumpMax: 123, PadFrom: 15}
)

// WithoutBMI2 returns the profile for a processor that has no shifts of three
// operands.
func (p Profile) WithoutBMI2() Profile {
	switch p.Rows {
	case tables.Kernel:
		p.Rows = tables.KernelNoBMI2
	case tables.Cage:
		p.Rows = tables.CageNoBMI2
	}
	return p
}

// Function describes a function of a translated program, as the kernel's
// verifier knows it. The zero value is a main program without a stack.
type Function struct {
	// StackDepth is what the function uses of its frame, in bytes.
	StackDepth int
	// Subprogram: not the main function.
	Subprogram bool
	// TailCallReachable: a tail call may happen in the program.
	TailCallReachable bool
	// Classic: converted from classic BPF.
	Classic bool
	// ExceptionBoundary: exceptions thrown below return from here.
	ExceptionBoundary bool
	// ExceptionCallback: the kernel enters it with a frame to return to.
	ExceptionCallback bool
	// ArenaKernel and ArenaUser are the start addresses of the program's
	// arena, 0 without one.
	ArenaKernel, ArenaUser uint64
	// PrivateStack is the address of a per-cpu frame, 0 without one.
	PrivateStack uint64
}

// args returns the parameters of rows.
func (p *Profile) args(fn *Function) encoder.Args {
	return encoder.Args{
		tables.ArgVsyscall: int64(p.Vsyscall),
		tables.ArgLimit:    int64(p.AddrLimit + 4096 - p.Vsyscall),
		tables.ArgPercpu:   int64(p.Percpu),
		tables.ArgUser:     int64(fn.ArenaUser >> 32),
	}
}
