// Package helpers implements the helper functions that programs call, under
// the numbers that bpf-helpers(7) gives them.
//
// A [Table] says which function a number calls; [Standard] makes one of all
// that are here, and the caller may add his own. An [Env] is what they work
// on: memory and maps of a run, clock, randomness, the number of the
// processor, and where trace_printk prints to.
//
// Package machine has native code for some of them, which must mean the same.
//
// Results are those of the kernel's helpers: a value, an address, or a
// negative error number. What the kernel's verifier would not let a program do
// (a pointer to memory that isn't there, something that is no map) ends the
// run with an error that wraps abi.ErrFault.
package helpers
