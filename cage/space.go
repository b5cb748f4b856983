package cage

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
)

var (
	// ErrFull reports that a Space has no room for an allocation.
	ErrFull = errors.New("guest memory is full")
	// ErrClosed reports the use of a closed Space or Instance.
	ErrClosed = errors.New("guest memory is closed")
	// ErrNoWindow reports that this build or this system can't make
	// windows. It matches errors.ErrUnsupported.
	ErrNoWindow = fmt.Errorf("no memory windows: %w", errors.ErrUnsupported)
)

// Space is guest memory that programs share: maps and globals. An address in
// it means the same in every instance of the Space. The zero value is an empty
// Space ready for use; a Space must not be copied. All methods may be called
// from several goroutines at once.
//
// A Space takes neither address space nor a file until it is first allocated
// from or given a window.
type Space struct {
	// What a window or a plain instance reads without the lock. host is
	// set before size first leaves 0, and neither goes back while an
	// instance is open.
	size atomic.Uint64  // accessible bytes from SharedBase, a multiple of PageSize
	host unsafe.Pointer // where the host sees them

	closed atomic.Bool

	mu    sync.Mutex
	mem   *shared // nil until it is needed
	plain bool    // never make windows, even where they could be made
	open  int     // instances in use or pooled, and Holds

	pools [kinds]pool
}

// Size returns the number of accessible bytes from abi.SharedBase upward. It
// only grows.
func (s *Space) Size() uint64 { return s.size.Load() }

// Alloc returns the guest address of n fresh bytes, all zero, at the beginning
// of a page. The rest of the last page stays zero until a program writes
// there. The memory lives as long as the Space. n = 0 takes a page as well, so
// that addresses differ. The error wraps ErrFull, ErrClosed, or what the
// system said.
func (s *Space) Alloc(n uint64) (addr uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return 0, fmt.Errorf("allocating %d bytes of guest memory: %w", n, ErrClosed)
	}
	old := s.size.Load()
	if n > abi.SharedMax {
		return 0, fmt.Errorf("allocating %d bytes of guest memory: %w", n, ErrFull)
	}
	size := old + roundUp(max(n, 1))
	if size > abi.SharedMax {
		return 0, fmt.Errorf("allocating %d bytes of guest memory behind %d: %w", n, old, ErrFull)
	}
	if err := s.need(); err != nil {
		return 0, err
	}
	if err := s.mem.grow(old, size); err != nil {
		return 0, fmt.Errorf("growing guest memory from %d to %d bytes: %w", old, size, err)
	}
	s.size.Store(size)
	return abi.SharedBase + old, nil
}

// Closed reports whether Close was called.
func (s *Space) Closed() bool { return s.closed.Load() }

// need makes the shared memory if there is none yet. s.mu is held.
func (s *Space) need() error {
	if s.mem != nil {
		return nil
	}
	mem, err := newShared(s.plain)
	if err == nil && mem.file < 0 && !s.plain && windowed.Load() {
		// The system does make windows, so something has run out. It may be
		// there again, for programs that need one.
		return errors.Join(mem.noWin, mem.release())
	}
	if err != nil {
		return fmt.Errorf("reserving guest memory: %w", err)
	}
	s.mem, s.host = mem, mem.host
	return nil
}

// Bytes returns the n bytes at guest address addr as the host sees them:
// writes reach all programs at once. The slice is valid until the Space is
// closed. The error wraps abi.ErrFault if not all of it is mapped.
func (s *Space) Bytes(addr, n uint64) ([]byte, error) {
	if p := s.at(addr, n); p != nil {
		return unsafe.Slice((*byte)(p), n), nil
	}
	if n == 0 {
		return []byte{}, nil
	}
	return nil, &RangeError{Addr: addr, Len: n}
}

// Written yields the parts of the n bytes at guest address addr in which there may
// be anything but zeroes, by their first address and the one behind, in order.
// Where the system can tell, that leaves out all memory that nobody has touched, and
// that reading would take from the system. The bytes must be mapped, and the Space
// be held. (Of a closed one there are none.)
func (s *Space) Written(addr, n uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(from, to uint64) bool) {
		s.mu.Lock()
		mem := s.mem
		s.mu.Unlock()
		if mem == nil {
			return // closed
		}
		at := addr - abi.SharedBase
		for end := at + n; at < end; {
			from, to := mem.written(at, end)
			if from >= to || !yield(abi.SharedBase+from, abi.SharedBase+to) {
				return
			}
			at = to
		}
	}
}

// at returns where the host sees the n bytes at addr, or nil.
func (s *Space) at(addr, n uint64) unsafe.Pointer {
	size := s.size.Load()
	if o := addr - abi.SharedBase; o < size && n <= size-o {
		return unsafe.Add(s.host, o)
	}
	return nil
}

// windowed is set once a window was made: later ones can fail only for want of
// something that can run out.
var windowed atomic.Bool

// Windows returns nil if instances of kind Window can be had, as far as that
// can be told beforehand, or an error that wraps ErrNoWindow and says what the
// system refuses. The first time it makes a window and closes it again; after
// that it costs nothing, and the Space takes no memory by it.
func (s *Space) Windows() error {
	s.mu.Lock()
	mem, plain := s.mem, s.plain
	s.mu.Unlock()
	switch {
	case mem != nil && mem.file < 0:
		return mem.noWin
	case plain:
		return ErrNoWindow
	case windowed.Load():
		return nil
	}
	var probe Space
	i, err := probe.NewInstance(Window)
	if err == nil {
		windowed.Store(true)
		err = i.Close()
	}
	return errors.Join(err, probe.Close())
}

// Hold keeps the memory of the Space where the host sees it, whoever closes the
// Space meanwhile, until Release. The error is ErrClosed.
func (s *Space) Hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	s.open++
	return nil
}

// Release undoes a Hold.
func (s *Space) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	return s.release()
}

// Close gives the memory back, at once or when the last open instance is
// closed. It is idempotent.
func (s *Space) Close() error {
	s.mu.Lock() // no instance is in the making
	s.closed.Store(true)
	s.mu.Unlock()
	errs := s.drain()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(errs, s.release())...)
}

// release gives the shared memory back if nothing needs it any more. s.mu is
// held.
func (s *Space) release() error {
	if !s.closed.Load() || s.open > 0 || s.mem == nil {
		return nil
	}
	mem := s.mem
	s.size.Store(0)
	s.mem, s.host = nil, nil
	return mem.release()
}

// RangeError names guest memory that is not all mapped. It wraps
// abi.ErrFault.
type RangeError struct {
	Addr, Len uint64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%v: %d bytes at guest address %#x", abi.ErrFault, e.Len, e.Addr)
}

// Unwrap returns abi.ErrFault.
func (e *RangeError) Unwrap() error { return abi.ErrFault }

// roundUp rounds n up to whole pages.
func roundUp(n uint64) uint64 { return (n + abi.PageSize - 1) &^ (abi.PageSize - 1) }
