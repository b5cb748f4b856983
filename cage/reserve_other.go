//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || windows)

package cage

import "unsafe"

// plainLimit is less than abi.SharedMax, since Go's memory is held from the
// beginning.
const plainLimit = 64 << 20

func (m *shared) reserve(n int) error {
	m.host = pages(n)
	m.keep = unsafe.Slice((*byte)(m.host), n)
	return nil
}

func (m *shared) commit(from, to uint64) error { return nil }

func (m *shared) unreserve() error {
	m.keep = nil
	return nil
}
