package abi

import "errors"

// HelperFunc implements a BPF helper function in Go. r1 to r5 are the
// arguments, the result becomes R0; R1 to R5 are 0 afterwards. An error ends
// the run. A HelperFunc may allocate, block, and be called from several
// goroutines at once.
type HelperFunc func(env Env, r1, r2, r3, r4, r5 uint64) (r0 uint64, err error)

// Env is a helper's view of the run that called it. It is valid until the
// helper returns.
type Env interface {
	// Bytes returns the n bytes of guest memory at addr; writes reach the
	// program. The error wraps ErrFault if they aren't all mapped.
	Bytes(addr, n uint64) ([]byte, error)
	// Map returns the map that a handle stands for, or nil.
	Map(handle uint64) Map
	// Now returns nanoseconds of a monotonic clock.
	Now() uint64
	// Random returns 32 random bits.
	Random() uint32
	// CPU returns the number of the processor, as far as the run is concerned.
	CPU() uint32
	// Print receives the text of trace_printk, without a newline.
	Print(text string)
}

// Map is what helpers see of a map. Values live in guest memory. Keys and values
// that are handed over must have exactly KeySize and ValueSize bytes.
type Map interface {
	KeySize() int   // bytes
	ValueSize() int // bytes
	// Lookup returns the guest address of the value of key.
	Lookup(key []byte) (addr uint64, ok bool)
	// Update and Delete return a negative errno, or 0.
	Update(key, value []byte, flags uint64) int64
	Delete(key []byte) int64
}

// ErrFault reports an access outside of the guest's memory, a misaligned
// atomic, or another machine fault.
var ErrFault = errors.New("memory fault")

// ErrBudget reports that a run used up its budget.
var ErrBudget = errors.New("instruction budget exhausted")
