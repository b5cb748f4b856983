// Package abi holds what the compiling and the running wing of bpfjit must
// agree on: the instruction word, the roles of the registers, the guest's
// address plan, the context that machine code shares with its driver, and the
// contract of helper functions. It contains definitions, no mechanism.
package abi
