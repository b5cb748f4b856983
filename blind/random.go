package blind

import (
	"crypto/rand"
	"fmt"
	"io"
)

const (
	// numberBytes is how many bytes of a reader a random number takes.
	numberBytes = 4
	// storeBytes is how much the generator makes at a time: four blocks' worth,
	// so that short programs seldom wait for it, nor do caches notice.
	storeBytes = 4 * block * numberBytes
)

// source deals out random numbers. It reads no more from its reader than are
// taken.
type source struct {
	reader io.Reader // nil: own
	own    io.Reader // a generator
	// left is what is left of store, which own has filled. No reader writes
	// there: what it gives may be known to others.
	left  []byte
	store [storeBytes]byte
	read  [block * numberBytes]byte
}

// start makes the source read from r, or from its own generator. That has a
// key from the system and is kept: its numbers give away neither earlier ones
// nor later ones.
func (s *source) start(r io.Reader) error {
	if s.reader = r; r != nil || s.own != nil {
		return nil
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("blind: random key: %w", err)
	}
	s.own = newGenerator(key)
	return nil
}

// take returns n numbers, at most a block, as bytes, little-endian. They are good
// up to the next call.
func (s *source) take(n int) ([]byte, error) {
	n *= numberBytes
	if s.reader != nil {
		return s.read[:n], fill(s.read[:n], s.reader)
	}
	if n > len(s.left) {
		if err := fill(s.store[:], s.own); err != nil {
			return nil, err
		}
		s.left = s.store[:]
	}
	numbers := s.left[:n]
	s.left = s.left[n:]
	return numbers, nil
}

func fill(b []byte, r io.Reader) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("blind: random numbers: %w", err)
	}
	return nil
}
