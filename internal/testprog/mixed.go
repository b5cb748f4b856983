package testprog

import (
	"fmt"

	"github.com/bpfjit/bpfjit/internal/mixed"
)

// Mixed makes a program of exactly n slots with the opcode frequencies of real
// programs, as program of a seed: see [mixed.Mix.Program].
func Mixed(seed uint64, n int) Program {
	return Program{Name: fmt.Sprintf("mixed seed=%d n=%d", seed, n), Insns: mixed.Real().Program(seed, n)}
}
