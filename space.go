package bpfjit

import (
	"sync"

	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/maps"
)

// Space is memory that programs share: their maps and globals, 2 GiB at most.
// A map has the same address in all programs of a Space. The zero value is
// empty and ready for use; a Space must not be copied. Its methods may be
// called from several goroutines at once.
type Space struct {
	mem cage.Space

	once sync.Once
	set  *maps.Set
}

// NewSpace returns an empty Space.
func NewSpace() *Space { return new(Space) }

// maps returns the maps of the space.
func (s *Space) maps() *maps.Set {
	s.once.Do(func() { s.set = maps.NewSet(&s.mem) })
	return s.set
}

// Close gives the memory back, at once or when the last instance is closed
// that uses it. Programs of the Space can't be run any more. Closing again
// does nothing.
func (s *Space) Close() error { return s.mem.Close() }
