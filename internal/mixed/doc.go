// Package mixed makes programs of any length to be compiled: with the opcode
// frequencies of real programs, or with those of given ones.
package mixed
