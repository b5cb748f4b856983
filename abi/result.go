package abi

import (
	"errors"
	"strconv"
)

// Stop says how a run ended. Every engine uses the same words for the same
// end, so that results can be compared.
type Stop uint8

const (
	StopExit   Stop = iota // the main function returned
	StopFault              // an access outside of guest memory, a misaligned atomic
	StopBudget             // what is left of the budget doesn't cover the next CHARGE
	StopHelper             // a helper returned an error, or its number is unknown
	StopCancel             // the caller asked for it
)

// String returns the stop's name.
func (s Stop) String() string {
	switch s {
	case StopExit:
		return "exit"
	case StopFault:
		return "fault"
	case StopBudget:
		return "budget"
	case StopHelper:
		return "helper"
	case StopCancel:
		return "cancel"
	}
	return "stop " + strconv.Itoa(int(s))
}

// Result is what is left of a run.
type Result struct {
	// R0 is the program's result when Stop is StopExit, and 0 otherwise.
	R0 uint64
	// Used is the budget taken by the CHARGEs that were passed: an upper
	// bound on the source instructions executed.
	Used int64
	// Stop says how the run ended.
	Stop Stop
	// Slot is the source slot of the instruction that the run ended at, or
	// before which the budget ran out. It is -1 when Stop is StopExit.
	Slot int
	// Addr is the effective address of a faulting access, a guest address
	// between -32768 and WindowSize+32766.
	Addr int64
	// Err is what a helper or the caller's check returned.
	Err error
}

// Cause returns nil for a run that ended well, and otherwise ErrFault,
// ErrBudget, or the error that a helper or the caller's check returned.
func (r *Result) Cause() error {
	switch r.Stop {
	case StopExit:
		return nil
	case StopFault:
		return ErrFault
	case StopBudget:
		return ErrBudget
	}
	return r.Err
}

// ErrHelper reports a call of a helper that the run doesn't have.
var ErrHelper = errors.New("unknown helper function")

// UnknownHelper is the number of a helper that a run called but doesn't have.
// As an error it wraps ErrHelper.
type UnknownHelper uint32

func (u UnknownHelper) Error() string {
	return ErrHelper.Error() + " " + strconv.FormatUint(uint64(u), 10)
}

// Unwrap returns ErrHelper.
func (u UnknownHelper) Unwrap() error { return ErrHelper }
