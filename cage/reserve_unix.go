//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package cage

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
)

// plainLimit is an eighth of abi.SharedMax where addresses have 32 bits.
const plainLimit = abi.SharedMax >> (3 * (1 - ^uint(0)>>63)) &^ (1<<16 - 1)

// reserve takes address space; it holds no memory yet. It may be nearly all that
// the process can have, and given back at once: meanwhile nothing is allocated
// here, since Go's runtime doesn't survive that it gets no memory.
func (m *shared) reserve(n int) error {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	m.keep, m.host = unsafe.Slice((*byte)(p), n), p
	return nil
}

// commit rounds to the system's pages, which may be larger than ours; what is
// accessible to programs is a matter of Space.size.
func (m *shared) commit(from, to uint64) error {
	page := uint64(unix.Getpagesize())
	from &^= page - 1
	to = min((to+page-1)&^(page-1), m.limit)
	return unix.Mprotect(m.keep[from:to], unix.PROT_READ|unix.PROT_WRITE)
}

func (m *shared) unreserve() error {
	n := len(m.keep)
	m.keep = nil
	return unix.MunmapPtr(m.host, uintptr(n)) // of nothing is an error
}
