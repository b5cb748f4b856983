// Package machine runs generated code: it enters it on a stack of its own,
// serves its exits, and survives its faults.
//
// # One way in
//
// Code runs on the native stack of a [cage.Instance]. Nothing of it is on the
// goroutine's stack but the frame of the driver, which waits in enter or one
// of its siblings; they are assembly and never call Go. What code wants of Go
// is an exit: registers are saved in the [abi.Context], the stack is switched
// back, the driver acts, and resumes. So helpers are ordinary Go functions
// that may allocate, block, grow the stack and panic.
//
//	          enter                  call [HelperStub]
//	Frame -----------> code ------------------------------> Frame: helper
//	  ^      resume     ^ |          call [SliceStub]              slice
//	  |                 | +-------------------------------> Frame: budget, yield
//	  +-----------------+ |          fault, by signal
//	      resumeAll       +-------------------------------> Frame: fix up, or end
//	                      |          ret
//	                      +-------------------------------> Frame: done
//
// Dash is the shortest way: one piece of assembly that takes the [Turn] of a
// [Frame], enters, and gives the Turn back.
//
// Helpers that need nothing of Go can be native code (Native): the call leads to
// a table in the Context, and from there to code on the same native stack, or to
// the exit. What native code can't do, it leaves to the exit as well.
//
// # Registers of generated code
//
//	RDI RSI    R1 and R2 at entry; every other BPF register is 0
//	RBP        R10: abi.StackTop, a guest offset
//	R12        the window's base, always
//	R9         what is left of the slice
//	R10 R11    scratch
//	RSP        the native stack
//
// At a helper's call EAX is its number; afterwards RAX is the result and R1 to
// R5 are 0. At a slice's exit R11 is the charge n and R9 is the slice less n,
// below zero.
//
// # Slices
//
// A program can't be stopped from outside, and a goroutine in it is at no
// point where the garbage collector could stop it. So it gets its budget in
// slices of abi.Slice instructions: a spent slice leads to the driver, which
// asks whether to go on, lets the scheduler in, and deals the next one. That
// takes no signal. The scheduler gets in through a function with a stack
// check, not through runtime.Gosched, which a waiting collector can't stop.
//
// # Signals
//
// [Check] hooks the signals that faults raise. The handler acts only on a
// thread that is on a native stack, which it proves by R12, RSP and the
// Context, and leads that thread to an exit; everything else goes to Go's
// handler as if it had come there. SIGPROF, SIGQUIT and SIGABRT are shown the
// driver's frame instead of code that Go can't make sense of.
package machine
