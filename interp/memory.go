package interp

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// access executes an operation on memory. If ok is false nothing has changed.
func access(inst *cage.Instance, o *op, r *[16]uint64, ea int64) (ok bool) {
	size := int(o.size)
	dst, src := &r[o.dst&15], &r[o.src&15]
	var v uint64
	switch o.code {
	case opStore:
		return inst.Store(ea, size, *src+o.imm)
	case opStoreRelease:
		return inst.StoreRelease(ea, size, *src)
	case opLoad:
		if v, ok = inst.Load(ea, size); ok {
			*dst = v
		}
		return ok
	case opLoadSigned:
		if v, ok = inst.Load(ea, size); ok {
			unused := 64 - 8*size
			*dst = uint64(int64(v<<unused) >> unused)
		}
		return ok
	case opLoadAcquire:
		if v, ok = inst.LoadAcquire(ea, size); ok {
			*dst = v
		}
		return ok

	case opAtomicAdd:
		_, ok = inst.AtomicAdd(ea, size, *src)
		return ok
	case opAtomicOr:
		_, ok = inst.AtomicOr(ea, size, *src)
		return ok
	case opAtomicAnd:
		_, ok = inst.AtomicAnd(ea, size, *src)
		return ok
	case opAtomicXor:
		_, ok = inst.AtomicXor(ea, size, *src)
		return ok

	case opFetchAdd:
		v, ok = inst.AtomicAdd(ea, size, *src)
	case opFetchOr:
		v, ok = inst.AtomicOr(ea, size, *src)
	case opFetchAnd:
		v, ok = inst.AtomicAnd(ea, size, *src)
	case opFetchXor:
		v, ok = inst.AtomicXor(ea, size, *src)
	case opExchange:
		v, ok = inst.AtomicSwap(ea, size, *src)
	case opCompareExchange:
		v, ok = inst.AtomicCompareSwap(ea, size, r[abi.R0], *src)
		src = &r[abi.R0]
	default:
		panic("BUG: interp: not an operation on memory")
	}
	if ok {
		*src = v
	}
	return ok
}

// setCounter begins to count may_goto in the frame below r10. Frames are
// mapped, always.
func setCounter(inst *cage.Instance, r10 uint64) {
	if !inst.Store(address(r10, abi.MayGotoOffset), 8, abi.MayGotoCount) {
		panic("BUG: interp: no memory for a frame")
	}
}

// countDown takes one from the counter, unless that is 0.
func countDown(inst *cage.Instance, r10 uint64) bool {
	at := address(r10, abi.MayGotoOffset)
	n, ok := inst.Load(at, 8)
	if !ok {
		panic("BUG: interp: no memory for a frame")
	}
	return n != 0 && inst.Store(at, 8, n-1)
}

// Division (RFC 9669, section 4.1). The 32-bit forms come here, too, extended
// to 64 bits according to their sign.

func div(x, y uint64) uint64 {
	if y == 0 {
		return 0
	}
	return x / y
}

func mod(x, y uint64) uint64 {
	if y == 0 {
		return x
	}
	return x % y
}

// Go, too, truncates toward zero, and gives x for x / -1 where x is the least
// number.

func sdiv(x, y uint64) uint64 {
	if y == 0 {
		return 0
	}
	return uint64(int64(x) / int64(y))
}

func smod(x, y uint64) uint64 {
	if y == 0 {
		return x
	}
	return uint64(int64(x) % int64(y))
}
