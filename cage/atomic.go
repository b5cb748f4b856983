package cage

import (
	"sync/atomic"
	"unsafe"
)

// Atomic operations of a program (RFC 9669, section 5.3, and Linux' load
// acquire and store release). They are atomic to everybody: machine code,
// other interpreters, the host. All are sequentially consistent, which is what
// the locked instructions of x86 are and more than the program may ask for.
// ok is false, and nothing has happened, if the bytes aren't all mapped or the
// effective address is not a multiple of the size.

// atomicAt returns where the host sees the operand of an atomic access.
func (i *Instance) atomicAt(ea int64, size int) unsafe.Pointer {
	if ea&int64(size-1) != 0 {
		return nil
	}
	return i.at(ea, uint64(size))
}

// AtomicAdd adds v to the 4 or 8 bytes at ea and returns what was there,
// zero-extended.
func (i *Instance) AtomicAdd(ea int64, size int, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		return uint64(atomic.AddUint32((*uint32)(p), uint32(v)) - uint32(v)), true
	}
	return atomic.AddUint64((*uint64)(p), v) - v, true
}

// AtomicOr is AtomicAdd with a bitwise or.
func (i *Instance) AtomicOr(ea int64, size int, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		return uint64(atomic.OrUint32((*uint32)(p), uint32(v))), true
	}
	return atomic.OrUint64((*uint64)(p), v), true
}

// AtomicAnd is AtomicAdd with a bitwise and.
func (i *Instance) AtomicAnd(ea int64, size int, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		return uint64(atomic.AndUint32((*uint32)(p), uint32(v))), true
	}
	return atomic.AndUint64((*uint64)(p), v), true
}

// AtomicXor is AtomicAdd with a bitwise exclusive or.
func (i *Instance) AtomicXor(ea int64, size int, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		for {
			old := atomic.LoadUint32((*uint32)(p))
			if atomic.CompareAndSwapUint32((*uint32)(p), old, old^uint32(v)) {
				return uint64(old), true
			}
		}
	}
	for {
		old := atomic.LoadUint64((*uint64)(p))
		if atomic.CompareAndSwapUint64((*uint64)(p), old, old^v) {
			return old, true
		}
	}
}

// AtomicSwap writes v to the 4 or 8 bytes at ea and returns what was there,
// zero-extended.
func (i *Instance) AtomicSwap(ea int64, size int, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		return uint64(atomic.SwapUint32((*uint32)(p), uint32(v))), true
	}
	return atomic.SwapUint64((*uint64)(p), v), true
}

// AtomicCompareSwap writes v to the 4 or 8 bytes at ea if they hold expect, of
// which 4 bytes look at the low half only. It returns what was there,
// zero-extended.
func (i *Instance) AtomicCompareSwap(ea int64, size int, expect, v uint64) (old uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	if size == 4 {
		for {
			old := atomic.LoadUint32((*uint32)(p))
			if old != uint32(expect) || atomic.CompareAndSwapUint32((*uint32)(p), old, uint32(v)) {
				return uint64(old), true
			}
		}
	}
	for {
		old := atomic.LoadUint64((*uint64)(p))
		if old != expect || atomic.CompareAndSwapUint64((*uint64)(p), old, v) {
			return old, true
		}
	}
}

// LoadAcquire returns the 1, 2, 4 or 8 bytes at ea, zero-extended.
func (i *Instance) LoadAcquire(ea int64, size int) (v uint64, ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return 0, false
	}
	switch size {
	case 8:
		return atomic.LoadUint64((*uint64)(p)), true
	case 4:
		return uint64(atomic.LoadUint32((*uint32)(p))), true
	}
	word, shift, mask := narrow(p, size)
	return uint64(atomic.LoadUint32(word) >> shift & mask), true
}

// StoreRelease writes the low 1, 2, 4 or 8 bytes of v to ea.
func (i *Instance) StoreRelease(ea int64, size int, v uint64) (ok bool) {
	p := i.atomicAt(ea, size)
	if p == nil {
		return false
	}
	switch size {
	case 8:
		atomic.StoreUint64((*uint64)(p), v)
		return true
	case 4:
		atomic.StoreUint32((*uint32)(p), uint32(v))
		return true
	}
	word, shift, mask := narrow(p, size)
	for {
		old := atomic.LoadUint32(word)
		v := old&^(mask<<shift) | uint32(v)&mask<<shift
		if atomic.CompareAndSwapUint32(word, old, v) {
			return true
		}
	}
}

// narrow returns the aligned word that holds the 1 or 2 bytes at p, and their
// place in it. Go has no atomic access of less than a word. The word is mapped
// where its bytes are, since regions are whole pages.
func narrow(p unsafe.Pointer, size int) (word *uint32, shift int, mask uint32) {
	o := int(uintptr(p) & 3)
	return (*uint32)(unsafe.Add(p, -o)), 8 * o, 1<<(8*size) - 1
}
