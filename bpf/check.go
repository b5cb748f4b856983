package bpf

import "fmt"

// Dialect is the language that a program is written in.
type Dialect uint8

const (
	// Source is what compilers write: RFC 9669, and may_goto, load-acquire,
	// store-release and callx. What Check accepts is safe to run in the cage.
	Source Dialect = iota
	// Translated is what a kernel's verifier hands to its JIT: one function,
	// with internal opcodes and AX. It is compiled for its bytes, never run.
	Translated
)

func (d Dialect) String() string {
	if d == Translated {
		return "translated"
	}
	return "source"
}

// MaxSlots is the largest number of slots that Check accepts.
const MaxSlots = 1 << 20

// Check reports whether p is a well-formed program of the dialect. It takes
// time in proportion to the slots. The error is an *Error that names a slot at
// fault, the field and the reason: the first of those that are at fault by
// themselves, or else of those that lead where they must not; it wraps ErrUnsupported if
// the program is valid but has an instruction that isn't supported.
//
// In both dialects:
//   - reserved fields are 0, and every form is one the dialect has
//   - registers are R0 to R10, in translated programs also AX; nothing
//     writes R10
//   - 64-bit constants are complete
//   - branches and jumps lead to an instruction of their own function
//   - functions end in EXIT or an unconditional jump; a translated one may
//     also end in a call
//
// In a source program also:
//   - direct accesses through R10 stay within [R10-512, R10)
//   - calls of functions lead to functions, don't recurse, and nest no more
//     than abi.MaxFrames frames
//   - maps are referred to by constants that a loader has put in
func Check(p *Program, d Dialect) error {
	s := surveys.Get().(*Survey)
	defer s.release()
	return s.Check(p, d)
}

// Check does it as the function Check does, and makes s the survey of p by the
// way, if there is no error.
func (s *Survey) Check(p *Program, d Dialect) error {
	if s.quick(p, d) {
		return nil
	}
	return s.slow(p, d)
}

// lengthError is the error for a program of n slots, which are none or too many.
func lengthError(n int) error {
	if n == 0 {
		return &Error{Slot: -1, Reason: "has no instructions"}
	}
	return &Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, more than %d", n, MaxSlots)}
}

// slow does what Check does with a program that quick says no of.
func (s *Survey) slow(p *Program, d Dialect) error {
	// The quick check gives up where it is, and leaves half a survey, if any.
	s.program = nil
	if n := len(p.Insns); n == 0 || n > MaxSlots {
		return lengthError(n)
	}
	if err := p.CheckSizes(); err != nil {
		return err
	}
	c := checker{p: p, dialect: d}
	if err := c.exact(); err != nil {
		return err
	}
	s.Take(p)
	return nil
}
