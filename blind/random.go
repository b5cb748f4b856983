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

// source deals out random numbers. It reads no more from a reader than are
// taken.
type source struct {
	own io.Reader // a generator
	// left is how many bytes are left, the last ones of store, which own has filled.
	// No reader writes there: what it gives may be known to others.
	left  int
	store [storeBytes]byte
	read  [block * numberBytes]byte
}

// take returns n numbers, at most a block, as bytes, little-endian, from r, or from
// the source's own generator if there is no r. They are good up to the next call.
func (s *source) take(r io.Reader, n int) ([]byte, error) {
	n *= numberBytes
	if r != nil || n > s.left {
		return s.takeMore(r, n)
	}
	s.left -= n
	return s.store[storeBytes-s.left-n:][:n], nil
}

// takeMore takes bytes from a reader, or when there are too few.
func (s *source) takeMore(r io.Reader, n int) ([]byte, error) {
	if r != nil {
		return s.read[:n], fill(s.read[:n], r)
	}
	if err := s.refill(); err != nil {
		return nil, err
	}
	s.left -= n
	return s.store[:n], nil
}

// wholeBytes is a multiple of what generators make at a time: they are quickest at such
// places.
const wholeBytes = 128

// refill fills the store, behind most of what is left. The generator has a key from the system and is kept: its
// numbers give away neither earlier ones nor later ones.
func (s *source) refill() error {
	if s.own == nil {
		var key [32]byte
		if _, err := rand.Read(key[:]); err != nil {
			return fmt.Errorf("blind: random key: %w", err)
		}
		s.own = newGenerator(key)
	}
	kept := s.left &^ (wholeBytes - 1)
	copy(s.store[:kept], s.store[storeBytes-s.left:])
	s.left = 0
	if err := fill(s.store[kept:], s.own); err != nil {
		return err
	}
	s.left = storeBytes
	return nil
}

func fill(b []byte, r io.Reader) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("blind: random numbers: %w", err)
	}
	return nil
}
