package machine

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// Helpers is a set of helper functions by number. It doesn't change.
type Helpers struct {
	low    []abi.HelperFunc          // by number
	high   map[uint32]abi.HelperFunc // the rest
	native [abi.NativeHelpers]Native // what takes calls over from them
}

// maxLow bounds the table; Linux has some 210 helpers.
const maxLow = 1024

// Native is native code that does what a helper function does without leaving
// the native stack: ten times as fast. What it can't do it leaves to the
// function, so whether it is used can be seen by a clock only.
type Native uint8

const (
	// NativeLookup is map_lookup_elem. It does lookups in those arrays that
	// are in Input.Arrays by keys that are on the BPF stack.
	NativeLookup Native = 1 + iota
	// NativeCPU is get_smp_processor_id.
	NativeCPU
)

// NewHelpers returns a set of functions, none of which is nil.
func NewHelpers(funcs map[uint32]abi.HelperFunc) *Helpers {
	h := &Helpers{}
	for n, f := range funcs {
		if f == nil {
			panic(fmt.Sprintf("machine: helper %d is nil", n))
		}
		if n >= maxLow {
			if h.high == nil {
				h.high = map[uint32]abi.HelperFunc{}
			}
			h.high[n] = f
			continue
		}
		for int(n) >= len(h.low) {
			h.low = append(h.low, nil)
		}
		h.low[n] = f
	}
	return h
}

// WithNative returns the same set with native code for some of its functions,
// which must mean the same. Their numbers are below abi.NativeHelpers.
func (h *Helpers) WithNative(code map[uint32]Native) *Helpers {
	c := *h
	for n, native := range code {
		if h.Lookup(n) == nil || n >= abi.NativeHelpers {
			panic(fmt.Sprintf("machine: helper %d can't be native", n))
		}
		c.native[n] = native
	}
	return &c
}

// Lookup returns the helper with a number, or nil.
func (h *Helpers) Lookup(n uint32) abi.HelperFunc {
	if h == nil {
		return nil
	}
	if int(n) < len(h.low) {
		return h.low[n]
	}
	return h.high[n]
}
