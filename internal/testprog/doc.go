// Package testprog makes programs for tests and benchmarks.
//
//	Assemble   short programs written by hand: Mov64(R0, 5), labels, …
//	Verified   random programs that the verifier of Linux 6.18 accepts and
//	           whose results can be compared with a run in the kernel
//	Wild       random programs of the Source dialect, well-behaved or not,
//	           to compare two engines
//	Mixed      programs of any length with the opcode frequencies of real
//	           ones, for benchmarks
//	Ladder     programs that need many passes, and one that never settles
//	Shared     readers for the test data that lies beside the repository
//
// Random programs come from a seed: Seed prints it and takes it back from the
// environment (BPFJIT_SEED), Rand gives program i of a seed, so a failure is
// replayed with two numbers.
package testprog
