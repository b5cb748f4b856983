// Package bpfjit runs eBPF programs inside the calling process: compiled to
// x86-64 machine code by the Linux kernel's own method where that is possible,
// interpreted everywhere else, and always inside a cage that no program can
// leave.
//
// [Load] takes a program out of an object that clang has built, together with
// its maps and globals. [Program.RunPacket] shows it a packet:
//
//	spec, err := ebpf.LoadCollectionSpec("filter.bpf.o")
//	if err != nil {
//		return err
//	}
//	prog, err := bpfjit.Load(spec, "filter", nil)
//	if err != nil {
//		return err
//	}
//	defer prog.Close()
//	verdict, out, err := prog.RunPacket(packet)
//
// [Compile] and [CompileBytes] take instructions instead, and [Program.Run]
// gives a program plain memory to work on.
//
// # Safety
//
// A program that compiles is safe to run, whoever wrote it. It addresses
// nothing but a window of 4 GiB that holds its stack, its context, its packet
// and its maps; an access to anything else ends the run with an error that
// wraps [ErrFault]. A run that executes more instructions than its budget
// allows ends with [ErrBudget], and one whose context is cancelled ends with
// its slice of the budget, after some 65,000 instructions at most. Neither
// endless loops nor faults disturb the process, its garbage collector or its
// other goroutines.
//
// There is no verifier: programs that the kernel would refuse run as well, as
// far as they get.
//
// # Engines
//
// Machine code needs linux/amd64. The interpreter runs everywhere, executes
// the same programs, and comes to the same results, errors and budgets, to the
// last instruction. [Options.Engine] chooses, and [Program.Info] tells which
// one runs and why.
//
// # Concurrency
//
// A [Program] may be used by several goroutines at once, Close included: each
// run has an [Instance] to itself. Maps and globals are shared by the runs, as
// they are in the kernel.
package bpfjit
