package cage

import (
	"encoding/binary"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
)

// Accesses of a program. The effective address is
//
//	int64(uint32(register)) + int64(offset)
//
// and never wraps: what is below 0 or above the window is not mapped, as is
// everything that the address plan doesn't put a region at. Sizes are 1, 2, 4
// or 8 bytes. An access is mapped if all its bytes are.

// at returns where the host sees the n bytes at effective address ea, or nil
// if not all of them are mapped. n is 1 to 8.
func (i *Instance) at(ea int64, n uint64) unsafe.Pointer {
	a := uint64(ea)
	if o := a - abi.StackBase; o <= abi.StackSize-n {
		return unsafe.Add(i.stack, o)
	}
	if o := a - abi.MemBase; o < i.memSize && n <= i.memSize-o {
		return unsafe.Add(i.mem, o)
	}
	if o := a - abi.CtxBase; o <= abi.CtxSize-n {
		return unsafe.Add(i.ctx, o)
	}
	return i.space.at(a, n)
}

// Load returns the size bytes at effective address ea, zero-extended. ok is
// false if they aren't mapped.
func (i *Instance) Load(ea int64, size int) (v uint64, ok bool) {
	p := i.at(ea, uint64(size))
	if p == nil {
		return 0, false
	}
	switch size {
	case 1:
		return uint64(*(*uint8)(p)), true
	case 2:
		return uint64(binary.LittleEndian.Uint16((*[2]byte)(p)[:])), true
	case 4:
		return uint64(binary.LittleEndian.Uint32((*[4]byte)(p)[:])), true
	case 8:
		return binary.LittleEndian.Uint64((*[8]byte)(p)[:]), true
	}
	panic("BUG: cage: size of an access")
}

// Store writes the low size bytes of v to effective address ea. ok is false,
// and nothing is written, if they aren't all mapped.
func (i *Instance) Store(ea int64, size int, v uint64) (ok bool) {
	p := i.at(ea, uint64(size))
	if p == nil {
		return false
	}
	switch size {
	case 1:
		*(*uint8)(p) = uint8(v)
	case 2:
		binary.LittleEndian.PutUint16((*[2]byte)(p)[:], uint16(v))
	case 4:
		binary.LittleEndian.PutUint32((*[4]byte)(p)[:], uint32(v))
	case 8:
		binary.LittleEndian.PutUint64((*[8]byte)(p)[:], v)
	default:
		panic("BUG: cage: size of an access")
	}
	return true
}

// Bytes returns the n bytes at guest address addr for a helper; writes reach
// the program. Like every access it looks at the low 32 bits of the address
// only. The slice is valid until the run ends. The error is a *RangeError,
// which wraps abi.ErrFault, if not all of the bytes are mapped. n = 0 needs no
// mapped memory.
func (i *Instance) Bytes(addr, n uint64) ([]byte, error) {
	if n == 0 {
		return []byte{}, nil
	}
	a := uint64(uint32(addr))
	var p unsafe.Pointer
	switch {
	case inside(a, n, abi.StackBase, abi.StackSize):
		p = unsafe.Add(i.stack, a-abi.StackBase)
	case inside(a, n, abi.MemBase, i.memSize):
		p = unsafe.Add(i.mem, a-abi.MemBase)
	case inside(a, n, abi.CtxBase, abi.CtxSize):
		p = unsafe.Add(i.ctx, a-abi.CtxBase)
	default:
		p = i.space.at(a, n)
	}
	if p == nil {
		return nil, &RangeError{Addr: addr, Len: n}
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// inside reports whether all of the n bytes at a are among the size bytes at
// base.
func inside(a, n, base, size uint64) bool {
	o := a - base
	return o < size && n <= size-o
}
