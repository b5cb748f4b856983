// Package stages compiles programs to be timed: the whole way from the bytes
// of slots to the bytes of code, or stage by stage. It is the one place where
// benchmarks and "bpfjit bench" call the compiler.
package stages
