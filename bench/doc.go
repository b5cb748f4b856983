// Package bench weighs bpfjit: what it costs to compile a program, to place
// it, to call it and to be called back by it. It is a module of its own, so
// that the peers which it is compared with stay out of the product.
//
//	cd bench && go test -run - -bench .
//
// A benchmark's name says what is done, "key=value" parts say to what:
//
//	BenchmarkFloor/corpus=C          read 8 bytes, store 8 bytes, advance
//	BenchmarkEmit/corpus=C/blind=B   slots in, machine code out
//	BenchmarkEmit/corpus=generated/blind=B/insns=N
//	                                 the same for one program of N slots
//	BenchmarkBlind/memory=M/insns=N  constants hidden
//	BenchmarkPublish                 machine code to its place, and free
//	BenchmarkCall/engine=E           an empty program, from Go and back
//	BenchmarkCall/engine=jit/via=V   by Instance.Run, by Program.Run
//	                       .../by=two two goroutines in turns, 100 runs each
//	BenchmarkPublish/live=N/by=all   all processors at once
//	BenchmarkHelper/engine=E         a Go function, from a program and back
//	BenchmarkKernels/program=P       the cage's code against the kernel's
//
// Corpora: generated programs, which have the opcode frequencies of real ones;
// kernels, the eight programs of testdata/kernels; shared, real programs that
// lie beside the repository or else are left out.
//
// Compare runs by benchstat, ten of each and in turns. Times of a busy machine
// are good as ratios only: every benchmark has its yardstick in the same run.
package bench
