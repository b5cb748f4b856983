package cage

import (
	"fmt"
	"unsafe"
)

// shared is the memory of a Space: address space for all that it may ever
// hold, of which the first bytes are accessible.
type shared struct {
	host  unsafe.Pointer
	limit uint64 // bytes that host has room for, at most abi.SharedMax
	file  int    // memfd that windows can map, or -1
	noWin error  // why there is none
	keep  []byte // holds host, where that is Go's memory or x/sys keeps track
}

// newShared reserves shared memory: one that windows can map if possible,
// unless plain is set.
func newShared(plain bool) (*shared, error) {
	if plain {
		return newPlainShared(ErrNoWindow)
	}
	m, err := newFileShared()
	if err == nil {
		return m, nil
	}
	return newPlainShared(err)
}

// newPlainShared reserves as much address space as it can get, in halves of
// plainLimit but not less than plainLeast.
func newPlainShared(why error) (*shared, error) {
	m := &shared{file: -1, noWin: why}
	for n := plainLimit; ; n = n / 2 &^ (1<<16 - 1) {
		err := m.reserve(n)
		if err == nil {
			m.limit = uint64(n)
			return m, nil
		}
		if n/2 < plainLeast {
			return nil, err
		}
	}
}

const plainLeast = 32 << 20

// grow makes the bytes in [from, to) accessible. They are zero.
func (m *shared) grow(from, to uint64) error {
	if to > m.limit {
		return fmt.Errorf("the limit here is %d bytes: %w", m.limit, ErrFull)
	}
	if m.file >= 0 {
		return m.growFile(to)
	}
	return m.commit(from, to)
}

// release gives everything back.
func (m *shared) release() error {
	if m.file >= 0 {
		return m.releaseFile()
	}
	return m.unreserve()
}
