package blind

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// drawn is how many random numbers are drawn at a time.
const drawn = 1024

// source deals out random numbers. It reads no more from its reader than it
// was promised to be asked for.
type source struct {
	reader  io.Reader // nil: own
	own     *rand.ChaCha8
	left    int // numbers that are not yet drawn
	words   []uint32
	numbers [drawn]uint32
	bytes   [4 * drawn]byte
}

// start makes the source ready for n numbers. Without a reader it has a fresh
// key from the system.
func (s *source) start(r io.Reader, n int) error {
	s.reader, s.left, s.words = r, n, nil
	if r != nil || n == 0 {
		return nil
	}
	var key [32]byte
	if _, err := crand.Read(key[:]); err != nil {
		return fmt.Errorf("blind: random key: %w", err)
	}
	if s.own == nil {
		s.own = rand.NewChaCha8(key)
	} else {
		s.own.Seed(key)
	}
	return nil
}

// draw fills words.
func (s *source) draw() error {
	n := min(s.left, drawn)
	s.left -= n
	b := s.bytes[:4*n]
	if s.reader == nil {
		s.own.Read(b)
	} else if _, err := io.ReadFull(s.reader, b); err != nil {
		return fmt.Errorf("blind: random numbers: %w", err)
	}
	for i := range n {
		s.numbers[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	s.words = s.numbers[:n]
	return nil
}
