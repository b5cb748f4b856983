// Package jit compiles BPF programs to x86-64 code. It is pure: values in,
// bytes and tables out; no memory is mapped.
//
// [Compile] translates one function the way Linux does, byte for byte;
// [CompileCage] a whole program for the cage, where no program can reach
// memory that isn't its own. Both size every instruction once, run passes over
// the jumps alone until nothing shrinks any more (passes.go), and then write
// the bytes once.
package jit
