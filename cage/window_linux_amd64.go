package cage

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
)

// Supported returns nil if this build can make windows, and otherwise an error
// that wraps ErrNoWindow. The system may refuse them all the same.
func Supported() error { return nil }

// newFileShared makes the shared memory of a Space as a file without a name,
// and maps it for the host. Pages that nobody touched take no memory.
func newFileShared() (*shared, error) {
	fd, err := unix.MemfdCreate("bpfjit-maps", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w: memfd_create: %w", ErrNoWindow, err)
	}
	host, err := unix.MmapPtr(fd, 0, nil, abi.SharedMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: mapping shared memory: %w", ErrNoWindow, err)
	}
	return &shared{host: host, limit: abi.SharedMax, file: fd}, nil
}

// growFile moves the end of the file, and with it the end of what is
// accessible, in all mappings at once.
func (m *shared) growFile(to uint64) error {
	for {
		if err := unix.Ftruncate(m.file, int64(to)); err != unix.EINTR {
			return err
		}
	}
}

// writtenFile asks which pages the file has. What it hasn't is a hole.
func (m *shared) writtenFile(at, end uint64) (from, to uint64) {
	data, err := unix.Seek(m.file, int64(at), unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // nothing from here on
		return end, end
	case err != nil: // the system doesn't tell
		return at, end
	case uint64(data) >= end:
		return end, end
	}
	hole, err := unix.Seek(m.file, data, unix.SEEK_HOLE)
	if err != nil {
		return uint64(data), end
	}
	return uint64(data), min(uint64(hole), end)
}

func (m *shared) releaseFile() error {
	err := unix.MunmapPtr(m.host, abi.SharedMax)
	if e := unix.Close(m.file); err == nil {
		err = e
	}
	return err
}

// noMarkers is set once the kernel has refused guard markers: Linux before
// 6.13.
var noMarkers atomic.Bool

// openWindow takes a slot and maps the instance's memory in it, as the picture
// of this package shows.
func (i *Instance) openWindow(m *shared) error {
	if m.file < 0 {
		return m.noWin
	}
	base, err := slots.take()
	if err != nil {
		return err
	}
	if err := mapWindow(base, m); err != nil {
		slots.give(base)
		return fmt.Errorf("%w: mapping one: %w", ErrNoWindow, err)
	}
	i.base = base
	i.stack = unsafe.Add(base, abi.StackBase)
	i.ctx = unsafe.Add(base, abi.CtxBase)
	i.mem = unsafe.Add(base, abi.MemBase)
	return nil
}

func mapWindow(base unsafe.Pointer, m *shared) error {
	if err := protect(unsafe.Add(base, -slotBelow), nativeStack+abi.PageSize, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return err
	}
	if err := mapPrivate(base); err != nil {
		return err
	}
	const size = slotStride - slotBelow - abi.SharedBase
	_, err := unix.MmapPtr(m.file, 0, unsafe.Add(base, abi.SharedBase), size,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE|unix.MAP_FIXED)
	return err
}

// mapPrivate makes the stack and the context structure accessible. Where the
// kernel has guard markers, both and the caller's memory are one mapping with
// markers in the gaps; that saves four mappings, of which a process has 65,530.
func mapPrivate(base unsafe.Pointer) error {
	const rw = unix.PROT_READ | unix.PROT_WRITE
	if !noMarkers.Load() {
		if err := protect(unsafe.Add(base, abi.StackBase), abi.MemBase-abi.StackBase, rw); err != nil {
			return err
		}
		err := mark(unsafe.Add(base, abi.StackTop), abi.CtxBase-abi.StackTop)
		if err == nil {
			err = mark(unsafe.Add(base, abi.CtxBase+abi.CtxSize), abi.MemBase-abi.CtxBase-abi.CtxSize)
		}
		if err == nil {
			return nil
		}
		if err == unix.EINVAL {
			noMarkers.Store(true)
		}
		if err := protect(unsafe.Add(base, abi.StackBase), abi.MemBase-abi.StackBase, unix.PROT_NONE); err != nil {
			return err
		}
	}
	if err := protect(unsafe.Add(base, abi.StackBase), abi.StackSize, rw); err != nil {
		return err
	}
	return protect(unsafe.Add(base, abi.CtxBase), abi.CtxSize, rw)
}

// protectMem changes the accessible size of the caller's memory.
func (i *Instance) protectMem(old, size uint64) error {
	if size > old {
		return protect(unsafe.Add(i.mem, old), size-old, unix.PROT_READ|unix.PROT_WRITE)
	}
	return protect(unsafe.Add(i.mem, size), old-size, unix.PROT_NONE)
}

func (i *Instance) closeWindow() error { return slots.give(i.base) }

func protect(p unsafe.Pointer, n uint64, prot int) error {
	return unix.Mprotect(unsafe.Slice((*byte)(p), n), prot)
}

// mark makes pages fault on every access, whatever their protection.
func mark(p unsafe.Pointer, n uint64) error {
	return unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_GUARD_INSTALL)
}

// discard gives whole pages of private memory back to the system. They read
// as zero afterwards.
func discard(p unsafe.Pointer, n uint64) {
	if n == 0 {
		return
	}
	if err := unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_DONTNEED); err != nil {
		clear(unsafe.Slice((*byte)(p), n)) // locked memory can't be given back
	}
}
