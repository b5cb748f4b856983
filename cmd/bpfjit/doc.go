// Command bpfjit runs, shows and compares eBPF programs and the x86-64 machine
// code that they become.
//
//	bpfjit run       runs a program of an object on packets or memory
//	bpfjit dump      shows bytecode beside machine code beside C
//	bpfjit predict   tells what a kernel's JIT will do with an object, plain and hardened
//	bpfjit diff      compares with what the running kernel makes of a program
//	bpfjit bench     times how long compiling an object takes, stage by stage
//	bpfjit vectors   compiles and runs test vectors, JSON lines in and out
//	bpfjit plugin    is a plugin of the bpf_conformance suite
//
// "bpfjit COMMAND -h" tells more.
package main
