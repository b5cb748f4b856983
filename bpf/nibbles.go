package bpf

import "math/bits"

// nibbles is a set of opcodes, or several, in a shape that vectors look up: an
// opcode has the bits high[op>>4] & low[op&15]. Each bit is a rectangle of the
// table of all opcodes, whose rows are the upper halves and whose columns the
// lower ones. The tables stand there twice, for either half of a vector.
type nibbles struct{ high, low [32]uint8 }

// of returns the bits of an opcode.
func (t *nibbles) of(op uint8) uint8 { return t.high[op>>4] & t.low[op&15] }

// add covers a set of opcodes with rectangles, for which it takes the given
// bits. Opcodes of which it doesn't matter may be covered, too. If there are
// too few bits it leaves out as few opcodes as it can.
func (t *nibbles) add(taken uint8, in, free func(op int) bool) {
	var left, most [16]uint16 // columns of each row: still to be covered, at most
	for op := range 256 {
		if in(op) {
			left[op>>4] |= 1 << (op & 15)
		}
		if in(op) || free(op) {
			most[op>>4] |= 1 << (op & 15)
		}
	}
	for ; taken != 0; taken &= taken - 1 {
		columns := widest(&left, &most)
		if columns == 0 {
			return // nothing is left
		}
		bit := taken & -taken
		for i := range 16 {
			if columns&^most[i] == 0 {
				left[i] &^= columns
				t.high[i] |= bit
				t.high[i+16] |= bit
			}
			if columns>>i&1 != 0 {
				t.low[i] |= bit
				t.low[i+16] |= bit
			}
		}
	}
}

// widest returns the columns of the rectangle that covers the most.
func widest(left, most *[16]uint16) (columns uint16) {
	covered := 0
	for i := range 16 {
		if i > 0 && left[i] == left[i-1] && most[i] == most[i-1] {
			continue // as most rows
		}
		for _, c := range []uint16{left[i], most[i]} {
			n := 0
			for row := range 16 {
				if c&^most[row] == 0 {
					n += bits.OnesCount16(c & left[row])
				}
			}
			if n > covered {
				columns, covered = c, n
			}
		}
	}
	return columns
}
