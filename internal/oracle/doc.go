// Package oracle compares package jit with the live kernel: the same
// translated instructions in, the same bytes out, at the same address.
package oracle
