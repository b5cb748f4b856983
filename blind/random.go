package blind

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// source deals out random numbers. It reads no more from its reader than are
// taken.
type source struct {
	reader  io.Reader // nil: own
	own     *rand.ChaCha8
	numbers [block]uint32 // an even number of them
	bytes   [4 * block]byte
}

// start makes the source read from r, or from its own generator. That has a
// key from the system and is kept: it gives away neither earlier numbers nor
// later ones.
func (s *source) start(r io.Reader) error {
	if s.reader = r; r != nil {
		return nil
	}
	if s.own == nil {
		var key [32]byte
		if _, err := crand.Read(key[:]); err != nil {
			return fmt.Errorf("blind: random key: %w", err)
		}
		s.own = rand.NewChaCha8(key)
	}
	return nil
}

// take returns n numbers, at most a block. They are good up to the next call.
func (s *source) take(n int) ([]uint32, error) {
	if s.reader == nil {
		for i := 0; i < n; i += 2 {
			v := s.own.Uint64()
			s.numbers[i], s.numbers[i+1] = uint32(v), uint32(v>>32)
		}
		return s.numbers[:n], nil
	}
	b := s.bytes[:4*n]
	if _, err := io.ReadFull(s.reader, b); err != nil {
		return nil, fmt.Errorf("blind: random numbers: %w", err)
	}
	for i := range n {
		s.numbers[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return s.numbers[:n], nil
}
