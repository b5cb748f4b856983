// Package align places code for the processor.
package align

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
)

// line is the size of a cache line in bytes.
const line = 64

// Line has what follows begin a cache line. Processors fetch and remember decoded code
// by the line, so loops take up to a fifth more or less time by where in one they begin.
// The linker places functions at multiples of 32 bytes unless they ask for more: where
// a function begins with Line, all of it lies the same in every program that it is
// linked into.
func Line() {
	build.Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.U8(line)}})
}
