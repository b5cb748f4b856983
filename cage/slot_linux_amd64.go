package cage

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
)

// nativeStack is the size of the stack that machine code runs on, in bytes. It
// ends where the Context begins; below it is the guard of the slot below.
const nativeStack = 64 << 10

// A slot is the address space of one window: from slotBelow bytes below its
// base up to where the next slot begins. Slots are carved from slabs, which
// are reserved without access when they are needed and kept for ever: a slot
// that nobody uses costs neither memory nor, as it merges with its neighbours,
// a mapping.
//
//	+-------+----------------+----------------+-----
//	| guard | slot           | slot           | ...
//	+-------+----------------+----------------+-----
//	         <- slotStride ->
const (
	slotBelow  = nativeStack - abi.ContextOffset
	slotStride = 2 * abi.WindowSize
	// maxSlab is the largest number of slots reserved at once.
	maxSlab = 64
)

// slots are those of the process.
var slots slotList

type slotList struct {
	mu   sync.Mutex
	free []unsafe.Pointer // bases
	next int              // size of the next slab, in slots
	used int              // slots that were taken
}

// mappings is how many a window takes at most.
const mappings = 6

// most is how many windows there may be: as many as take three quarters of the
// mappings that a process may have (proc_sys_vm(5), max_map_count). Go's runtime ends
// the process when it gets none.
var most = sync.OnceValue(func() int {
	n := 65530
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		fmt.Sscan(string(b), &n)
	}
	return n / mappings * 3 / 4
})

// take returns the base of a free slot, all of which is without access.
func (l *slotList) take() (unsafe.Pointer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= most() {
		return nil, fmt.Errorf("%d windows are open, which is as many as vm.max_map_count has room for", l.used)
	}
	if len(l.free) == 0 {
		if err := l.reserve(); err != nil {
			return nil, err
		}
	}
	last := len(l.free) - 1
	base := l.free[last]
	l.free = l.free[:last]
	l.used++
	return base, nil
}

// give takes all memory and mappings from a slot and makes it free.
func (l *slotList) give(base unsafe.Pointer) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Add(base, -slotBelow), slotStride,
		unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE|unix.MAP_FIXED)
	if err != nil {
		// Whatever is mapped there is still accessible: not free.
		return fmt.Errorf("unmapping a window: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, base)
	l.used--
	return nil
}

// reserve makes new slots: twice as many as last time, or as few as the
// system has room for.
func (l *slotList) reserve() error {
	var err error
	for n := min(max(l.next, 1), maxSlab); n > 0; n /= 2 {
		var first unsafe.Pointer
		if first, err = reserveSlab(n); err != nil {
			continue
		}
		l.next = 2 * n
		for k := n - 1; k >= 0; k-- {
			l.free = append(l.free, unsafe.Add(first, k*slotStride))
		}
		return nil
	}
	return fmt.Errorf("%w: reserving address space: %w", ErrNoWindow, err)
}

// reserveSlab reserves n slots in a row and returns the base of the first.
func reserveSlab(n int) (unsafe.Pointer, error) {
	const below = slotBelow + abi.GuardSize
	size := uintptr(n)*slotStride + abi.GuardSize
	// What mmap returns is at most WindowSize-PageSize away from where the
	// first base must be.
	all := size + abi.WindowSize
	p, err := unix.MmapPtr(-1, 0, nil, all, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	skip := -(uintptr(p) + below) & (abi.WindowSize - 1)
	if skip > 0 {
		if err := unix.MunmapPtr(p, skip); err != nil {
			return nil, err
		}
	}
	start := unsafe.Add(p, skip)
	if rest := all - skip - size; rest > 0 {
		if err := unix.MunmapPtr(unsafe.Add(start, size), rest); err != nil {
			return nil, err
		}
	}
	return unsafe.Add(start, below), nil
}
