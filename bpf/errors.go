package bpf

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported is wrapped by errors about instructions that are valid but
// that this compiler doesn't handle. It matches errors.ErrUnsupported.
var ErrUnsupported = fmt.Errorf("bpf: instruction not supported: %w", errors.ErrUnsupported)

// ErrRange is wrapped by errors about a jump or call whose distance doesn't
// fit its field any more.
var ErrRange = errors.New("bpf: distance out of range")

// Error says what is wrong with one instruction of a program.
type Error struct {
	// Slot is the instruction's slot in the program handed in, or -1 if the
	// program as a whole is meant.
	Slot int
	Insn Insn
	// Field is "opcode", "dst", "src", "off" or "imm", or empty if no single
	// field is at fault.
	Field string
	// Reason goes on from the field: "is 1, must be 0".
	Reason string
	// Err is a sentinel, such as ErrUnsupported, or nil.
	Err error
}

func (e *Error) Error() string {
	var s strings.Builder
	switch {
	case e.Slot < 0:
		s.WriteString("program: ")
	case e.Insn == Insn{}:
		fmt.Fprintf(&s, "slot %d: ", e.Slot)
	default:
		fmt.Fprintf(&s, "slot %d (%s): ", e.Slot, Text(e.Insn))
	}
	if e.Field != "" {
		s.WriteString(e.Field + " ")
	}
	s.WriteString(e.Reason)
	return s.String()
}

func (e *Error) Unwrap() error { return e.Err }
