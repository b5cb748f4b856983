package bpfjit

import (
	"fmt"
	"math"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// x86 is one machine instruction as a listing shows it.
type x86 struct {
	offset int // in the code
	size   int
	text   string
}

// Disassemble decodes the x86-64 instruction at an offset of code, in Intel
// syntax, with its length in bytes. Any offset will do, inside of an
// instruction too, which is where sprayed constants are entered. Targets of
// jumps are offsets of code. A byte that begins no instruction is "db" and its
// value.
func Disassemble(code []byte, offset int) (text string, size int) {
	x := disassemble(code, offset)
	return x.text, x.size
}

// disassemble returns the instruction at an offset of the code, in Intel
// syntax. Targets of jumps and calls are offsets of the code. What can't be
// decoded is a single byte.
func disassemble(code []byte, offset int) x86 {
	b := code[offset:]
	switch {
	case len(b) >= 4 && b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && b[3] == 0xfa:
		return x86{offset, 4, "endbr64"} // the decoder stops behind f3
	case b[0] == 0xcc:
		return x86{offset, 1, "int3"}
	}
	inst, err := x86asm.Decode(b, 64)
	if err != nil || inst.Op == 0 { // an Op of 0 is a lone prefix
		return x86{offset, 1, fmt.Sprintf("db %#02x", b[0])}
	}
	for i, arg := range inst.Args {
		if m, ok := arg.(x86asm.Mem); ok && m.Disp > math.MaxInt32 {
			m.Disp -= 1 << 32 // the decoder forgets the sign of 32 bits
			inst.Args[i] = m
		}
	}
	x := x86{offset: offset, size: inst.Len}
	switch {
	case inst.Op == x86asm.NOP:
		x.text = "nop" // of several bytes: operands that mean nothing
	default:
		x.text = strings.ToLower(x86asm.IntelSyntax(inst, 0, nil))
		for _, arg := range inst.Args {
			if rel, ok := arg.(x86asm.Rel); ok {
				name, _, _ := strings.Cut(x.text, " .")
				x.text = fmt.Sprintf("%s %#x", name, offset+inst.Len+int(rel))
			}
		}
	}
	return x
}
