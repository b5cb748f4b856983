package helpers

import (
	"math/rand/v2"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/maps"
)

// Memory is guest memory as helpers reach it. *cage.Instance is one.
type Memory interface {
	// Bytes returns the n bytes at a guest address. The error wraps
	// abi.ErrFault if they aren't all mapped.
	Bytes(addr, n uint64) ([]byte, error)
}

// Env is what the helpers of a run work on: the usual abi.Env. One Env may
// serve one run after the other, but each run at a time needs its own.
type Env struct {
	// Memory of the run. nil: it has none.
	Memory Memory
	// Maps of the run's Space. nil: there are none.
	Maps *maps.Set
	// Clock returns nanoseconds that never go back. nil: those since the
	// process began, and one.
	Clock func() uint64
	// Rand returns 32 random bits. nil: math/rand/v2.
	Rand func() uint32
	// Processor is the number of the processor.
	Processor uint32
	// Printer receives the text of trace_printk, without the newline at its
	// end. nil: nobody does.
	Printer func(text string)
}

var _ abi.Env = (*Env)(nil)

// Bytes implements abi.Env.
func (e *Env) Bytes(addr, n uint64) ([]byte, error) {
	if e.Memory == nil {
		return nil, abi.ErrFault
	}
	return e.Memory.Bytes(addr, n)
}

// Map implements abi.Env.
func (e *Env) Map(handle uint64) abi.Map {
	if e.Maps == nil {
		return nil
	}
	return e.Maps.Map(handle)
}

var start = time.Now()

// Now implements abi.Env.
func (e *Env) Now() uint64 {
	if e.Clock != nil {
		return e.Clock()
	}
	return uint64(time.Since(start)) + 1
}

// Random implements abi.Env.
func (e *Env) Random() uint32 {
	if e.Rand != nil {
		return e.Rand()
	}
	return rand.Uint32()
}

// CPU implements abi.Env.
func (e *Env) CPU() uint32 { return e.Processor }

// Print implements abi.Env.
func (e *Env) Print(text string) {
	if e.Printer != nil {
		e.Printer(text)
	}
}

func ktimeGetNs(e abi.Env, _, _, _, _, _ uint64) (uint64, error) { return e.Now(), nil }

func getPrandomU32(e abi.Env, _, _, _, _, _ uint64) (uint64, error) { return uint64(e.Random()), nil }

func getSmpProcessorID(e abi.Env, _, _, _, _, _ uint64) (uint64, error) { return uint64(e.CPU()), nil }
