// Package blind hides the constants of a program, so that whoever writes the
// program does not choose bytes of its machine code.
//
// A constant is not in the code any more: it is computed, from a random
// number R and R ^ constant, in the internal register AX.
//
//	r1 += 0x90909090      w11 = R ^ 0x90909090     mov r10d, ...
//	                      w11 ^= R                 xor r10d, ...
//	                      r1 += r11                add rdi, r10
//
// It is Linux's rewrite (net.core.bpf_jit_harden), instruction by
// instruction; the rules come from gen/bpf.txt. Linux mends every branch of
// the program for every constant. Here all constants are found in one walk,
// and branches are mended on the way, as soon as their targets have a place.
//
// # What is not hidden
//
//   - displacements of loads, stores and atomic operations (16 bits), shift
//     counts, and the sizes of byte swaps
//   - distances of jumps and calls, which follow from the program's length
//   - numbers of helpers
//   - the address of a function, in a translated program: a loader's to fill in
//   - instructions marked bpf.Inserted, which the author didn't write, and
//     those that use AX, which would not survive it
package blind
