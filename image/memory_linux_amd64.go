package image

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is the address space of a Region. Offsets are bytes from its start.
type memory struct {
	size int
	exec unsafe.Pointer // where code runs
	// write is the second view of the same memory, or nil: then exec
	// itself is writable between open and seal.
	write unsafe.Pointer
	why   error // why there is no second view
}

// reserve takes size bytes of address space, all inaccessible: a memfd mapped
// twice if that can be had and single isn't set.
func reserve(size int, single bool) (memory, error) {
	m := memory{size: size, why: errSingle}
	if !single {
		if m.why = m.reserveTwice(); m.why == nil {
			return m, nil
		}
	}
	exec, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return memory{}, fmt.Errorf("image: reserving %d bytes: %w", size, os.NewSyscallError("mmap", err))
	}
	m.exec = exec
	return m, m.dontFork(exec)
}

var errSingle = errors.New("a single view was asked for")

func (m *memory) reserveTwice() (err error) {
	// A file that grows past RLIMIT_FSIZE would raise SIGXFSZ.
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &lim); err == nil && lim.Cur < uint64(m.size) {
		return fmt.Errorf("RLIMIT_FSIZE is %d", lim.Cur)
	}
	// MFD_EXEC came with Linux 6.3; older kernels know only files that may
	// be executed.
	fd, err := unix.MemfdCreate("bpfjit", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("bpfjit", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(m.size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	defer func() {
		if err != nil {
			m.unmap()
		}
	}()
	for _, view := range []*unsafe.Pointer{&m.exec, &m.write} {
		p, err := unix.MmapPtr(fd, 0, nil, uintptr(m.size), unix.PROT_NONE, unix.MAP_SHARED)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		*view = p
		if err := m.dontFork(p); err != nil {
			return err
		}
	}
	// Some systems refuse to execute such a file: find out now.
	if _, err := m.open(0, pageSize); err != nil {
		return err
	}
	if err := m.seal(0, pageSize); err != nil {
		return err
	}
	return m.close(0, pageSize)
}

// dontFork keeps a view out of the children of fork(2), whose copy would be
// out of reach of the bookkeeping.
func (m *memory) dontFork(view unsafe.Pointer) error {
	return os.NewSyscallError("madvise", madvise(view, m.size, unix.MADV_DONTFORK))
}

func (m *memory) unmap() {
	for _, view := range []*unsafe.Pointer{&m.exec, &m.write} {
		if *view != nil {
			unix.MunmapPtr(*view, uintptr(m.size))
			*view = nil
		}
	}
}

// writable returns the view through which [off, off+n) can be written while
// it is open.
func (m *memory) writable(off, n int) []byte {
	view := m.write
	if view == nil {
		view = m.exec
	}
	return unsafe.Slice((*byte)(unsafe.Add(view, off)), n)
}

// readable returns the executable view of [off, off+n), which is to be read
// only.
func (m *memory) readable(off, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.exec, off)), n)
}

// twoViews reports whether open memory stays writable, elsewhere, when it is
// sealed.
func (m *memory) twoViews() bool { return m.write != nil }

func (m *memory) addr(off int) uintptr { return uintptr(m.exec) + uintptr(off) }

// open makes [off, off+n), which is inaccessible, writable and fills it with
// traps. It isn't executable yet. Both are multiples of the page size.
func (m *memory) open(off, n int) ([]byte, error) {
	b := m.writable(off, n)
	if err := mprotect(unsafe.Pointer(unsafe.SliceData(b)), n, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, err
	}
	// Memory that can't be had is an error here; a store would raise SIGBUS.
	// Kernels before 5.14 don't know the advice.
	if err := madvise(unsafe.Pointer(unsafe.SliceData(b)), n, unix.MADV_POPULATE_WRITE); err != nil && err != unix.EINVAL {
		return nil, errors.Join(os.NewSyscallError("madvise", err), m.close(off, n))
	}
	fill(b)
	return b, nil
}

// seal makes [off, off+n), which is open, executable. Where there are two
// views it can be written through the other one from now on; else no more.
func (m *memory) seal(off, n int) error {
	return mprotect(unsafe.Add(m.exec, off), n, unix.PROT_READ|unix.PROT_EXEC)
}

// close makes [off, off+n) inaccessible and gives its memory back. After an
// error it is as it was.
func (m *memory) close(off, n int) error {
	exec := unsafe.Add(m.exec, off)
	if err := mprotect(exec, n, unix.PROT_NONE); err != nil {
		return err
	}
	// What follows may fail where memory is locked, or where there are too
	// many mappings. Then it is kept, which does no harm: open fills it.
	if m.write == nil {
		madvise(exec, n, unix.MADV_DONTNEED)
		return nil
	}
	write := unsafe.Add(m.write, off)
	madvise(write, n, unix.MADV_REMOVE)
	mprotect(write, n, unix.PROT_NONE)
	return nil
}

func mprotect(p unsafe.Pointer, n, prot int) error {
	if _, _, e := unix.Syscall(unix.SYS_MPROTECT, uintptr(p), uintptr(n), uintptr(prot)); e != 0 {
		return os.NewSyscallError("mprotect", e)
	}
	return nil
}

func madvise(p unsafe.Pointer, n, advice int) error {
	if _, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(p), uintptr(n), uintptr(advice)); e != 0 {
		return e
	}
	return nil
}

// Commands of membarrier(2).
const (
	membarrierSyncCore         = 1 << 5 // PRIVATE_EXPEDITED_SYNC_CORE
	membarrierRegisterSyncCore = 1 << 6
)

// registerSync readies the process for syncCores.
func registerSync() error { return membarrier(membarrierRegisterSyncCore) }

// syncCores returns when every running thread of the process has executed a
// serialising instruction, so that none holds old instructions any more.
func syncCores() error { return membarrier(membarrierSyncCore) }

func membarrier(command uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_MEMBARRIER, command, 0, 0); e != 0 {
		return os.NewSyscallError("membarrier", e)
	}
	return nil
}
