// Package kernel uses the live Linux kernel as an oracle: it loads programs
// through bpf(2), runs them with BPF_PROG_TEST_RUN, and reads back what the
// verifier made of them and what the kernel's JIT emitted for that.
//
//	Spec --Load--> Program --Info--> translated slots, JITed bytes, symbols
//	                  |  \--Functions--> one Function per BPF function
//	                  \-----Run--------> R0, packet and context afterwards
//
// A Function holds what the kernel's JIT was given and what it made of it:
// the opcodes that the dump hides are restored, calls and thunks have their
// addresses, and what the verifier alone knows (stack depth, reachability by
// tail calls) is read back from the prologue. ReadConstants finds what the
// JIT takes from the kernel's build and boot options.
//
// All of it needs linux/amd64, root, and a JIT that is switched on; Available
// says what is missing. On other platforms the package builds and Available
// reports errors.ErrUnsupported.
//
// # The lock
//
// net.core.bpf_jit_harden changes what every load on the machine gives, so
// tests agree on one lock file, LockFile: whoever loads programs holds it
// shared (Require does that for a test), WithHarden2 holds it exclusively
// while the sysctl is 2. Load looks at the sysctl itself and refuses programs
// that hardening could crash the kernel with.
package kernel
