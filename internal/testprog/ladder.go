package testprog

import (
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
)

// Ladder makes a program whose jumps shrink one after the other, one a pass:
// h conditional jumps, each to the unconditional one of the next rank, and
// h-1 unconditional ones, all to the end, where the last two of the others
// lead as well. The kernel's JIT takes h+1 passes for h up to 16; from then on
// padding ends it at 17 (TestLadder).
//
//	call; jeq ×h; ja ×(h-1); end: return 1
//
// The verifier of Linux 6.18 accepts it.
func Ladder(h int) []abi.Insn {
	out := []abi.Insn{insn(abi.OpCall, 0, abi.CallHelper, 0, 7)}
	for k := range h {
		to := min(h+k+2, 2*h)
		out = append(out, insn(opJeqK, 0, 0, int16(to-k-2), int32(k+1)))
	}
	for k := range h - 1 {
		out = append(out, insn(abi.OpJa, 0, 0, int16(h-2-k), 0))
	}
	return append(out, insn(opMov64K, 0, 0, 0, 1), abi.Insn{Op: abi.OpExit})
}

// A sketch is a program of jumps and padding, blank-separated:
//
//	44    instructions of 44 bytes of machine code
//	f10   a conditional jump forward over 10 items
//	b10   a conditional jump back to 10 items before; all of those together
//	      are taken three times at most
//
// Both programs were found by random search and then made small.
const (
	// Jumps that are short in one pass make others long in the next one: the
	// length goes 270, 266, 270, 274, 270, … for ever.
	restless = "f10 f9 44 b0 f10 f7 f9 f11 f25 b0 15 f4 15 39 b6 10 f4 b8"

	// Two passes give the same length, one jump being longer and another one
	// shorter: an equal length isn't a fixed point (CVE-2021-29154).
	shifting = "f7 15 f6 f31 20 30 b14 27 23 b5"

	// The same in the cage, where CHARGE stands at the targets of jumps back.
	shiftingCaged = "f11 20 f12 f13 f13 f4 f12 f11 9 f4 f8 b8 9 16 f4 f2 b12 b7"
)

// Restless is a program whose length never settles, padding or not: the
// verifier of Linux 6.18 accepts it, its JIT gives up.
func Restless() []abi.Insn { return sketch(restless) }

// Shifting is a program for which two passes give the same length but not the
// same addresses. Linux 6.18 refuses it as well; a JIT that trusts the length
// emits jumps to the wrong places.
func Shifting() []abi.Insn { return sketch(shifting) }

// ShiftingCaged is a program for which that happens once it is lowered for the
// cage; the others settle there.
func ShiftingCaged() []abi.Insn { return sketch(shiftingCaged) }

// sketch makes the program of a sketch. R0 is unknown to the verifier, R6
// counts the jumps back.
func sketch(text string) []abi.Insn {
	items := strings.Fields(text)
	program := []Item{Call(7), Mov64(R1, 1), Mov64(R6, 0)}
	place := func(i int) string { return strconv.Itoa(max(0, min(i, len(items)))) }
	for i, item := range items {
		program = append(program, Label(place(i)))
		n, err := strconv.Atoi(strings.TrimLeft(item, "fb"))
		if err != nil {
			panic("BUG: testprog: " + err.Error())
		}
		switch item[0] {
		case 'f':
			program = append(program, JumpIf(R0, EQ, i+2, place(i+1+n)))
		case 'b':
			program = append(program, Add64(R6, 1), JumpIf(R6, LT, 3, place(i-n)))
		default:
			program = append(program, padding(n))
		}
	}
	return MustAssemble(append(program, Label(place(len(items))), Mov64(R0, 1), Exit())...)
}

// padding is instructions of n bytes of machine code, n being 2 or more, or 0.
func padding(n int) Item {
	switch {
	case n >= 12 || n == 10:
		return Block(Const64(R1, 1<<32), padding(n-10))
	case n >= 7 || n == 5:
		return Block(Mov32(R1, 5), padding(n-5))
	case n == 2:
		return Xor32(R1, R1)
	case n == 3:
		return Add64(R1, R0)
	case n == 4:
		return Add64(R1, 5)
	case n == 6:
		return Repeat(2, Add64(R1, R0))
	}
	return Block()
}
