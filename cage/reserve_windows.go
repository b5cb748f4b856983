package cage

import (
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/bpfjit/bpfjit/abi"
)

// plainLimit is an eighth of abi.SharedMax where addresses have 32 bits.
const plainLimit = abi.SharedMax >> (3 * (1 - ^uint(0)>>63)) &^ (1<<16 - 1)

// reserve takes address space; it holds no memory yet.
func (m *shared) reserve(n int) error {
	addr, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE, windows.PAGE_NOACCESS)
	if err != nil {
		return err
	}
	// The system's memory, which the collector doesn't know or move.
	m.host = *(*unsafe.Pointer)(unsafe.Pointer(&addr))
	m.keep = unsafe.Slice((*byte)(m.host), n)
	return nil
}

func (m *shared) commit(from, to uint64) error {
	_, err := windows.VirtualAlloc(uintptr(unsafe.Pointer(&m.keep[from])), uintptr(to-from), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err
}

func (m *shared) unreserve() error {
	return windows.VirtualFree(uintptr(unsafe.Pointer(unsafe.SliceData(m.keep))), 0, windows.MEM_RELEASE)
}
