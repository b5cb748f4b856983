package bpfjit

import (
	"errors"
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// What an error is about, for [errors.Is].
var (
	// ErrUnsupported reports what bpfjit can't do, or can't do here: an
	// instruction, a helper, a kind of map, machine code on this platform.
	// It matches [errors.ErrUnsupported].
	ErrUnsupported = fmt.Errorf("bpfjit: %w", errors.ErrUnsupported)
	// ErrRange reports a number that doesn't fit where it belongs: a branch
	// of more than 16 bits, memory beyond the size of a window.
	ErrRange = errors.New("bpfjit: out of range")
	// ErrFault ends a run for an access outside of its memory, a misaligned
	// atomic access, or any other fault of the machine.
	ErrFault = abi.ErrFault
	// ErrBudget ends a run that would exceed its budget.
	ErrBudget = abi.ErrBudget
	// ErrClosed is returned for anything asked of a Program, an Instance or a
	// Collection after Close.
	ErrClosed = errors.New("bpfjit: closed")
	// ErrBusy is returned for a second use of an Instance while it runs, and
	// by a Close that would wait for the run it is called from.
	ErrBusy = errors.New("bpfjit: busy")
)
