package blind

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// block is how many slots are rewritten at a time. None takes more than one
// random number.
const block = 512

// source deals out random numbers. It reads no more from its reader than it
// was started for.
type source struct {
	reader io.Reader // nil: own
	own    *rand.ChaCha8
	left   int // numbers that are not yet drawn
	// buffer[at:end] are drawn and not yet used. What is behind them may be
	// read where none is needed.
	at, end int
	buffer  [2 * block]uint32
	bytes   [8 * block]byte
}

// start makes the source ready for n numbers of r, or of its own generator.
// That has a key from the system and is kept: it gives away neither earlier
// numbers nor later ones.
func (s *source) start(r io.Reader, n int) error {
	s.reader, s.left, s.at, s.end = r, n, 0, 0
	if r != nil || s.own != nil {
		return nil
	}
	var key [32]byte
	if _, err := crand.Read(key[:]); err != nil {
		return fmt.Errorf("blind: random key: %w", err)
	}
	s.own = rand.NewChaCha8(key)
	return nil
}

// fill sees to it that the buffer has enough for more than a block, or all
// that are left.
func (s *source) fill() error {
	if s.end-s.at > block || s.left == 0 {
		return nil
	}
	copy(s.buffer[:], s.buffer[s.at:s.end])
	s.end -= s.at
	s.at = 0
	n := min(s.left, 2*block-s.end)
	s.left -= n
	free := s.buffer[s.end:]
	s.end += n
	if s.reader == nil {
		for i := 0; i+1 < n; i += 2 {
			u := s.own.Uint64()
			free[i], free[i+1] = uint32(u), uint32(u>>32)
		}
		if n%2 != 0 {
			free[n-1] = uint32(s.own.Uint64())
		}
		return nil
	}
	b := s.bytes[:4*n]
	if _, err := io.ReadFull(s.reader, b); err != nil {
		return fmt.Errorf("blind: random numbers: %w", err)
	}
	for i := range n {
		free[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return nil
}
