package image

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
)

const (
	pageSize  = 4096
	chunkSize = 64
	packSize  = 2 << 20

	headerSize = 8
	codeAlign  = 4
)

// layout is how an allocator sizes an image and chooses the start of its
// code. For n bytes of code and table, and h bytes of header:
//
//	size  = n + h + pad, rounded up to unit
//	hole  = min(size - (n + h), unit - h)
//	start = a random number below hole, rounded down to codeAlign
//
// so that the header is found by rounding the code's address down to unit.
type layout struct {
	pad, unit int
}

var (
	pageLayout = layout{pad: 128, unit: pageSize}
	packLayout = layout{pad: 16, unit: chunkSize}
)

// sizes returns the bytes to allocate for n bytes of code and table, and the
// bound below which the start is chosen.
func (l layout) sizes(n int) (size, hole int) {
	n += headerSize
	size = roundUp(n+l.pad, l.unit)
	return size, min(size-n, l.unit-headerSize)
}

func roundUp(n, unit int) int { return (n + unit - 1) &^ (unit - 1) }

// start chooses the start of the code. It takes 4 bytes of random, or the
// process's own generator (ChaCha8, seeded by the system) if that is nil.
func start(hole int, random io.Reader) (int, error) {
	var r uint32
	if random == nil {
		r = rand.Uint32()
	} else {
		var b [4]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return 0, err
		}
		r = binary.LittleEndian.Uint32(b[:])
	}
	// Multiplication spreads r evenly over the hole; the error against a
	// uniform choice is below hole in 2^32.
	return int(uint64(r)*uint64(hole)>>32) &^ (codeAlign - 1), nil
}
