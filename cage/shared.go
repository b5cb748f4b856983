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
	keep  []byte // what host has room for; holds it where that is Go's memory
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

// newPlainShared reserves plainLimit bytes of address space. Where there is
// less it leaves most of what there is to the rest of the process: it takes a
// quarter of the largest half of a half and so on that it can get, but not
// less than plainLeast.
func newPlainShared(why error) (*shared, error) {
	m := &shared{file: -1, noWin: why}
	n := plainLimit
	err := m.reserve(n)
	for err != nil && n/2 >= plainLeast {
		n = n / 2 &^ (1<<16 - 1)
		err = m.reserve(n)
	}
	if small := max(n/4&^(1<<16-1), plainLeast); err == nil && n < plainLimit && small < n {
		if err = m.unreserve(); err == nil {
			n = small
			err = m.reserve(n)
		}
	}
	if err != nil {
		return nil, err
	}
	m.limit = uint64(n)
	return m, nil
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

// written returns the first part of [at, end) that may hold anything but zeroes, an
// empty one if there is none.
func (m *shared) written(at, end uint64) (from, to uint64) {
	if m.file >= 0 {
		return m.writtenFile(at, end)
	}
	return at, end
}

// release gives everything back.
func (m *shared) release() error {
	if m.file >= 0 {
		return m.releaseFile()
	}
	return m.unreserve()
}
