package machine

import "github.com/bpfjit/bpfjit/abi"

// Input is what a run begins with.
type Input struct {
	// Entry is the offset of the first instruction in the code, in bytes.
	Entry int
	// Budget is the largest number of source instructions to execute: 0 is
	// abi.DefaultBudget, less than 0 as many as the program likes.
	Budget int64
	// Poll is asked each time a slice is spent, about 2^16 instructions. An
	// error ends the run. May be nil.
	Poll func() error
	// Helpers is what the program may call; nil is nothing.
	Helpers *Helpers
	// Env is what helpers are called with.
	Env abi.Env
	// Arrays are the maps that native helpers know, by the index of their
	// handles, as far as Env.Map finds them to be arrays. CPU is what
	// Env.CPU returns. Both are read by Frame.Bind.
	Arrays []abi.Array
	CPU    uint32
}

// Result is how a run ended and where it was. After StopExit the fields
// below abi.Result have no meaning.
type Result struct {
	// Result is complete but for Slot, which is -1: PC is to be looked up
	// in what the compiler says of the code. After StopFault, Addr is the
	// first byte of the access that is not accessible, if HasAddr.
	abi.Result

	// PC is where the run stopped, as an offset in the code in bytes. For a
	// fault it is the start of the instruction, and may lie outside of the
	// code after a wild jump. Otherwise it is the last byte of the call
	// that led to the exit.
	PC int
	// R are the BPF registers R0 to R10. R0 isn't known at the call of a
	// helper, and given as 0.
	R [11]uint64
	// R11 is x86's r11: for a fault of a load or a store through another
	// register than R10, the guest address without the offset.
	R11 uint32

	// Signal and Code are those of a fault, see sigaction(2).
	Signal, Code int
	// HasAddr says that the fault was about a guest address: Signal is
	// SIGSEGV or SIGBUS, and Addr is as far outside of the window as its
	// guards reach, or inside.
	HasAddr bool
}
