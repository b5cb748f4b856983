//go:build amd64 && !purego

package encoder

// Vectors tells whether the processor has what the assembly of this package is
// made of, and that of package jit.
func Vectors() bool { return assembly }
