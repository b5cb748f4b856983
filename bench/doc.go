// Package bench weighs bpfjit: what it costs to compile a program, to place
// it, to call it and to be called back by it. It is a module of its own, so
// that the peers which it is compared with stay out of the product.
//
//	cd bench && go test -run - -bench .
//
// A benchmark's name says what is done, "key=value" parts say to what:
//
//	BenchmarkFloor/corpus=C         read 8 bytes, store 8 bytes, advance
//	BenchmarkEmit/corpus=C/blind=B/profile=P/heat=H
//	                                bytes of slots in, machine code out
//	BenchmarkEmit/corpus=generated/insns=N/blind=B/profile=P/heat=H
//	                                the same for programs of N slots
//	BenchmarkEmitReemit/corpus=C    a plain compiler: all again in every pass
//	BenchmarkStage/blind=B/profile=P/insns=N/heat=H
//	                                each stage of compiling
//	BenchmarkBlind/memory=M/insns=N constants hidden
//	BenchmarkPublish/live=N         machine code to its place, and free
//	BenchmarkPublish/live=N/by=all  the same by all processors at once
//	BenchmarkLife/insns=N           compile, publish, run once, free
//	BenchmarkParallel/work=W/goroutines=N
//	                                many programs at once
//	BenchmarkLoadCollection/programs=N
//	                                an object of many programs
//	BenchmarkCall/engine=E          an empty program, from Go and back
//	BenchmarkCall/engine=jit/via=V  by Instance.Run, by Program.Run
//	BenchmarkCall/engine=jit/via=instance/by=two
//	                                two goroutines in turns, 100 runs each
//	BenchmarkHelper/engine=E        a Go function, from a program and back
//	BenchmarkNative/helper=H/by=B   one of our own helpers: native code, by an exit
//	BenchmarkKernels/program=P      the cage's code against the kernel's
//
// Corpora: generated programs, which have the opcode frequencies of real ones;
// kernels, the eight programs of testdata/kernels; shared, 200 real programs
// that lie beside the repository or else are left out. Eight more have packet
// loads of classic BPF (LD_ABS, LD_IND); they are left out and named.
//
// # What is measured
//
// The figure of a compiler is corpus=shared, blind=off or on, profile=kernel,
// heat=cold: every program once a sweep, so that no cache and no branch
// predictor has just seen it; the least disturbed of at least 20 sweeps. Bytes
// of slots go in, so decoding counts; code comes out in memory of the
// caller's. Decoding, checking, blinding, sizes, passes and emission count,
// publishing does not. Helper calls are relocations; functions return with a
// plain C3. profile=cage is the other way of a program: checked as source,
// lowered, compiled for the cage.
//
//	ns/insn          of the least disturbed sweep, per slot of the program as
//	                 it was before lowering and blinding
//	median-ns/insn   of the sweep in the middle: what the machine was like
//	B/insn, MB/s     of machine code
//	allocs/program   with memory that was used before
//
// Times of a busy machine are good as ratios only, so yardsticks take turns
// with what they measure: emit/floor of BenchmarkFloor is how many times as
// long as the floor the compiler takes, reemit/emit of BenchmarkEmitReemit how
// many times as long as the compiler the plain one takes.
//
// The passes over the jumps are inside of package jit: their own benchmark is
// there.
//
//	go test -run - -bench Passes ./jit
//
// # Exact counts
//
// Command bench/cmd/count goes over the corpus once for callgrind, which tells
// how many machine instructions that takes, whatever else the machine does. Its
// documentation has the command line.
//
// # Comparing
//
// Compare runs by benchstat, ten of each and in turns. The assembly against
// its Go twin:
//
//	go test -run - -bench Emit/corpus=shared -count 10 > asm
//	go test -run - -bench Emit/corpus=shared -count 10 -tags purego > purego
//	go run golang.org/x/perf/cmd/benchstat@latest asm purego
package bench
