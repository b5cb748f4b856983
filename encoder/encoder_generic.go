//go:build !amd64 || purego

package encoder

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

func measure(finders *[256]tables.Finder, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	return measureGeneric(finders, insns, rows, pos, marks)
}

func emit(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	return emitGeneric(code, insns, rows, gaps, ends)
}
