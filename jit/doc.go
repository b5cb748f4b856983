// Package jit compiles BPF programs to x86-64 code. It is pure: values in,
// bytes and tables out; no memory is mapped.
//
// [Compile] translates one function the way Linux does, byte for byte;
// [CompileCage] a whole program for the cage, where no program can reach
// memory that isn't its own. Both draft the code of all that stands by itself
// (encoder.Draft), run passes over the rest until nothing shrinks any more
// (passes.go), and then join the two.
package jit
