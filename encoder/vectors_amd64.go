//go:build amd64 && !purego

package encoder

// Vectors tells whether the processor has what the assembly of this package is
// made of; that of packages above it may ask, too.
func Vectors() bool { return assembly }
