package cage

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
)

// Kind selects how an instance's memory is held.
type Kind uint8

const (
	// Plain memory is reached through checked accesses only. It can be had
	// everywhere.
	Plain Kind = iota
	// Window memory is mapped after the address plan, for machine code.
	Window
	kinds
)

// Instance is the memory of one run at a time: the private regions of the
// address plan, and access to the shared memory of its Space. It must be used
// by one goroutine at a time, except that other instances of the Space may
// run on the shared memory meanwhile.
//
// A run needs the memory sized and filled before (SetMem, LoadMem, LoadCtx)
// and cleared behind it (Reset).
type Instance struct {
	// What an access looks at comes first.
	stack   unsafe.Pointer // where the host sees abi.StackBase
	mem     unsafe.Pointer // abi.MemBase; nil while nothing is mapped there
	ctx     unsafe.Pointer // abi.CtxBase
	memSize uint64         // accessible bytes from abi.MemBase, whole pages
	space   *Space

	// Invariant: all bytes of the private regions are zero but for
	// mem[:memDirty], ctx[:ctxDirty], and the stack between a run and its
	// Reset. memDirty <= memSize.
	memLen     uint64 // as SetMem was told
	memDirty   uint64
	ctxDirty   uint64
	stackDirty bool // the host asked for a view of it

	// Owner is the user's, to find again what belongs to an instance that
	// comes out of the pool.
	Owner any

	base  unsafe.Pointer // of the window; nil for a plain instance
	buf   []byte         // plain: holds mem; its capacity is whole pages
	kind  Kind
	state uint8
}

// The states of an instance. They tell misuse; what keeps two users apart is
// that an instance is in one place of a pool or none.
const (
	single = iota // from NewInstance
	pooled        // from Get
	idle          // in a pool
	closed
)

// Writes says what a program and the helpers that it calls can have written of
// the private memory, for Reset. The more narrowly it is told, the less is
// cleared.
type Writes struct {
	Stack int  // bytes below abi.StackTop; more than there are means all
	Ctx   bool // the context structure
	Mem   bool // the caller's memory
}

// WritesAll is right for every program.
var WritesAll = Writes{Stack: abi.StackSize, Ctx: true, Mem: true}

// NewInstance returns a clean instance without any caller's memory. The error
// wraps ErrClosed, ErrNoWindow for kind Window where windows can't be had, or
// what the system said when it ran out of address space or mappings. Close
// gives it back.
func (s *Space) NewInstance(kind Kind) (*Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, fmt.Errorf("new instance: %w", ErrClosed)
	}
	i := &Instance{space: s, kind: kind}
	switch kind {
	case Plain:
		i.stack, i.ctx = pages(abi.StackSize), pages(abi.CtxSize)
	case Window:
		if err := s.need(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoWindow, err)
		}
		if err := i.openWindow(s.mem); err != nil {
			return nil, err
		}
	default:
		panic("BUG: cage: unknown kind of instance")
	}
	s.open++
	return i, nil
}

// pages returns n bytes of zeroed host memory, aligned for every access.
func pages(n int) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, n/8)))
}

// Close gives the instance's memory back. It is idempotent. What came from Get
// may be closed instead of Put back, but not afterwards.
func (i *Instance) Close() error {
	switch i.state {
	case closed:
		return nil
	case idle:
		panic("BUG: cage: Close of an instance that was Put")
	}
	i.state = closed
	s := i.space
	var err error
	if i.base != nil {
		err = i.closeWindow()
	}
	i.stack, i.ctx, i.mem, i.base, i.buf = nil, nil, nil, nil, nil
	i.memSize, i.memLen, i.memDirty, i.ctxDirty = 0, 0, 0, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if e := s.release(); err == nil {
		err = e
	}
	return err
}

// Space returns the Space that the instance belongs to.
func (i *Instance) Space() *Space { return i.space }

// Windowed reports whether machine code can run in the instance: whether
// Base, Context and NativeStackTop may be called.
func (i *Instance) Windowed() bool { return i.base != nil }

// Base returns the host address of guest address 0, a multiple of 4 GiB. It is
// nil if the instance is not a window.
func (i *Instance) Base() unsafe.Pointer { return i.base }

// Context returns what machine code shares with its driver: the bytes at
// abi.ContextOffset from the base. It is zero at first and never cleared. The
// instance must be a window.
func (i *Instance) Context() *abi.Context {
	return (*abi.Context)(unsafe.Add(i.base, abi.ContextOffset))
}

// headroom is left above the first frame of machine code.
const headroom = 64

// NativeStackTop returns the host address that the stack pointer of machine
// code starts at, a multiple of 16. There are nearly 64 KiB below it. The
// instance must be a window.
func (i *Instance) NativeStackTop() uintptr {
	return uintptr(unsafe.Add(i.base, abi.ContextOffset-headroom))
}

// SetMem makes exactly n bytes, rounded up to whole pages, accessible at
// abi.MemBase, all zero. n may be 0 to abi.MemMax. After an error that wraps
// what the system said, what was accessible still is, until SetMem or LoadMem
// succeed; no run may begin before that.
func (i *Instance) SetMem(n int) error {
	if err := i.sizeMem(n); err != nil {
		return err
	}
	i.zero(0, i.memDirty)
	i.memDirty = i.memSize // the run may write anywhere in it
	return nil
}

// LoadMem is SetMem(len(p)) followed by a copy of p to abi.MemBase. It changes
// no mapping if the number of pages is what it was before.
func (i *Instance) LoadMem(p []byte) error {
	n := uint64(len(p))
	if roundUp(n) != i.memSize {
		if i.owns(p) { // what the last run left, say
			p = bytes.Clone(p)
		}
		if err := i.sizeMem(len(p)); err != nil {
			return err
		}
	}
	i.memLen = n
	if n > 0 {
		copy(i.Mem(), p)
	}
	if n < i.memDirty {
		i.zero(n, i.memDirty)
	}
	i.memDirty = i.memSize
	return nil
}

// owns reports whether p lies in the caller's memory.
func (i *Instance) owns(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))-uintptr(i.mem) < uintptr(i.memSize)
}

// HasMem reports whether there is caller's memory. If not, LoadMem(nil) is
// nothing.
func (i *Instance) HasMem() bool { return i.memSize != 0 }

// sizeMem makes n bytes accessible, with whatever is in them.
func (i *Instance) sizeMem(n int) error {
	if uint64(n) > abi.MemMax { // negative ones, too
		return &RangeError{Addr: abi.MemBase, Len: uint64(n)}
	}
	if size := roundUp(uint64(n)); size != i.memSize {
		if err := i.resizeMem(size); err != nil {
			return fmt.Errorf("sizing guest memory to %d bytes: %w", n, err)
		}
	}
	i.memLen = uint64(n)
	return nil
}

// resizeMem changes the number of accessible bytes. What becomes inaccessible
// is zeroed, so that all that is outside of [0, memDirty) stays zero.
func (i *Instance) resizeMem(size uint64) error {
	old, oldLen := i.memSize, i.memLen
	if size < i.memDirty {
		i.zero(size, i.memDirty)
		i.memDirty = size
	}
	i.memSize, i.memLen = 0, 0
	if i.base != nil {
		if err := i.protectMem(old, size); err != nil {
			i.memSize, i.memLen = old, oldLen // still accessible
			return err
		}
	} else if room := uint64(cap(i.buf)); size > room || room-size > keep {
		i.buf = unsafe.Slice((*byte)(pages(int(size))), size)
		i.mem = unsafe.Pointer(unsafe.SliceData(i.buf))
		i.memDirty = 0
	}
	i.memSize = size
	return nil
}

// keep is how much dirty memory is cleared in place; more is given back to
// the system. Clearing a page costs a sixth of faulting in a fresh one.
const keep = 1 << 20

// zero zeroes the caller's memory in [from, to), unless that is empty. The
// bytes from to up to the end of its page must be zero.
func (i *Instance) zero(from, to uint64) {
	if from >= to {
		return
	}
	if i.base != nil && to-from > keep {
		page := roundUp(from)
		discard(unsafe.Add(i.mem, page), roundUp(to)-page)
		to = page
	}
	clear(unsafe.Slice((*byte)(unsafe.Add(i.mem, from)), to-from))
}

// LoadCtx fills the context structure at abi.CtxBase: p, then zeroes. p has at
// most abi.CtxSize bytes.
func (i *Instance) LoadCtx(p []byte) error {
	if len(p) > abi.CtxSize {
		return &RangeError{Addr: abi.CtxBase, Len: uint64(len(p))}
	}
	ctx := unsafe.Slice((*byte)(i.ctx), abi.CtxSize)
	copy(ctx, p)
	if n := uint64(len(p)); n < i.ctxDirty {
		clear(ctx[n:i.ctxDirty])
	}
	i.ctxDirty = uint64(len(p))
	return nil
}

// Reset clears what a run with the given writes, and the host, can have
// written. The caller's memory keeps its size and contents for the host to
// read until the next SetMem or LoadMem, which must come before the next run.
func (i *Instance) Reset(w Writes) {
	n := w.Stack
	if i.stackDirty || uint(n) > abi.StackSize {
		n, i.stackDirty = abi.StackSize, false
	}
	if n > 0 {
		clear(unsafe.Slice((*byte)(unsafe.Add(i.stack, abi.StackSize-n)), n))
	}
	if w.Ctx {
		i.ctxDirty = abi.CtxSize
	}
	if i.ctxDirty > 0 {
		clear(unsafe.Slice((*byte)(i.ctx), i.ctxDirty))
		i.ctxDirty = 0
	}
	if !w.Mem {
		i.memDirty = min(i.memDirty, i.memLen)
	}
}

// Idle is Reset of an instance that may not be used for a while: large caller's
// memory is given back to the system.
func (i *Instance) Idle(w Writes) {
	i.Reset(w)
	if i.memDirty > keep {
		i.zero(0, i.memDirty)
		i.memDirty = 0
	}
}

// Mem returns the caller's memory: the n bytes of the last SetMem or LoadMem.
// The slice is valid until the memory changes its size.
func (i *Instance) Mem() []byte {
	if i.memLen == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(i.mem), i.memLen)
}

// Ctx returns the page that holds the context structure.
func (i *Instance) Ctx() []byte {
	i.ctxDirty = abi.CtxSize
	return unsafe.Slice((*byte)(i.ctx), abi.CtxSize)
}

// Stack returns the BPF stack, from abi.StackBase up to abi.StackTop.
func (i *Instance) Stack() []byte {
	i.stackDirty = true
	return unsafe.Slice((*byte)(i.stack), abi.StackSize)
}
