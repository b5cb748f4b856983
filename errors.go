package bpfjit

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// What an error is about, for [errors.Is].
var (
	// ErrUnsupported reports what bpfjit can't do, or can't do here: an
	// instruction, a helper, a kind of map, machine code on this platform.
	// It matches [errors.ErrUnsupported].
	ErrUnsupported error = notSupported{}
	// ErrRange reports a number that doesn't fit where it belongs: a branch
	// of more than 16 bits, memory beyond the size of a window.
	ErrRange = errors.New("out of range")
	// ErrFault ends a run for an access outside of its memory, a misaligned
	// atomic access, or any other fault of the machine.
	ErrFault = abi.ErrFault
	// ErrBudget ends a run that would exceed its budget.
	ErrBudget = abi.ErrBudget
	// ErrClosed is returned for anything asked of a Program, an Instance, a
	// Collection or a Space after Close, and of a Map whose memory is gone.
	ErrClosed = errors.New("bpfjit: closed")
	// ErrBusy is returned for a second use of an Instance while it runs, and
	// by a Close that would wait for the run it is called from.
	ErrBusy = errors.New("bpfjit: busy")
)

// notSupported is the type of ErrUnsupported.
type notSupported struct{}

func (notSupported) Error() string        { return "not supported" }
func (notSupported) Is(target error) bool { return target == errors.ErrUnsupported }

// CompileError says why a program can't be compiled. Printed with %+v, it
// shows the instructions around the one at fault.
type CompileError struct {
	Program string   // its name
	Offset  int      // slot of the instruction, from 0; -1: the program as a whole
	Ins     bpf.Insn // the instruction; zero where Offset is -1
	Field   string   // opcode, dst, src, off or imm, or empty if no single field is at fault
	Line    Line     // where it was compiled from, if known
	Err     error    // the reason, never nil

	around *around
}

// Error returns the short form, in one line.
func (e *CompileError) Error() string {
	reason := e.Err.Error()
	var be *bpf.Error
	if errors.As(e.Err, &be) {
		// The slot and the instruction are told here.
		reason = strings.TrimPrefix(be.Field+" "+be.Reason, " ")
	}
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %s", e.Program, reason)
	}
	text := ""
	if e.Ins != (bpf.Insn{}) {
		text = bpf.Text(e.Ins)
	}
	return fmt.Sprintf("%s: %s: %s", e.Program, place(e.Offset, text, e.Line), reason)
}

// Is makes the sentinels of the lower packages match those of this one.
func (e *CompileError) Is(target error) bool {
	return target == ErrUnsupported && errors.Is(e.Err, errors.ErrUnsupported) ||
		target == ErrRange && errors.Is(e.Err, bpf.ErrRange)
}

// Unwrap returns the reason.
func (e *CompileError) Unwrap() error { return e.Err }

// Format implements [fmt.Formatter]: %+v prints the long form.
func (e *CompileError) Format(f fmt.State, verb rune) { format(f, verb, e.Error(), e.around) }

// RunError says why a run ended early. It is the same for all engines, but
// for Signal. Printed with %+v, it shows the instructions around the one at
// fault.
type RunError struct {
	Program string
	// Offset is the slot of the instruction at fault, or, for ErrBudget and a
	// cancelled context, of the one that would have been next.
	Offset int
	// Addr is the guest address of the access, if Err is ErrFault: a register
	// of 32 bits and an offset, so it may lie a little outside of the window.
	Addr int64
	// Signal is what the machine raised, or 0 if nothing did: for budgets
	// and helpers, and in the interpreter.
	Signal syscall.Signal
	Line   Line
	// Err is ErrFault, ErrBudget, the error of the context, or what the
	// helper returned.
	Err error

	text   string // of the instruction
	around *around
}

// Error returns the short form, in one line.
func (e *RunError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %v", e.Program, place(e.Offset, e.text, e.Line), e.Err)
	if e.Err == ErrFault {
		fmt.Fprintf(&b, " at %#x", e.Addr)
	}
	if e.Signal != 0 {
		fmt.Fprintf(&b, " (%v)", e.Signal)
	}
	return b.String()
}

// Unwrap returns the reason.
func (e *RunError) Unwrap() error { return e.Err }

// Format implements [fmt.Formatter]: %+v prints the long form.
func (e *RunError) Format(f fmt.State, verb rune) { format(f, verb, e.Error(), e.around) }

// place names an instruction: "instruction 12 (r0 = 1) at filter.c:30".
func place(slot int, text string, line Line) string {
	if slot < 0 {
		return "no instruction of its own"
	}
	s := fmt.Sprintf("instruction %d", slot)
	if text != "" {
		s += fmt.Sprintf(" (%s)", text)
	}
	if line.Number != 0 {
		s += " at " + line.String()
	}
	return s
}

func format(f fmt.State, verb rune, short string, a *around) {
	switch {
	case verb == 'q':
		fmt.Fprintf(f, "%q", short)
	case verb == 'v' && f.Flag('+') && a != nil:
		io.WriteString(f, short+"\n")
		a.write(f)
	default:
		io.WriteString(f, short)
	}
}

// around is the neighbourhood of an instruction.
type around struct {
	src  *Source
	slot int
}

// neighbours is how many slots around shows on each side.
const neighbours = 5

func (a *around) write(w io.Writer) {
	p := a.src.Program
	from, to := max(a.slot-neighbours, 0), min(a.slot+neighbours+1, len(p.Insns))
	var last Line
	for i := from; i < to; i++ {
		if secondHalf(p.Insns, i) {
			continue
		}
		l := a.src.Line(i)
		l.Column = 0
		if l != last {
			last = l
			if s := l.comment(); s != "" {
				fmt.Fprintf(w, "        ; %s\n", s)
			}
		}
		mark := "  "
		if i == a.slot {
			mark = "> "
		}
		fmt.Fprintf(w, "%s%5d: %s\n", mark, i, p.Text(i))
	}
}

// compileError makes a CompileError of what a stage has found. Errors that
// don't belong to a program are returned as they are.
func compileError(name string, src *Source, err error) error {
	e := &CompileError{Program: printable.Name(name), Offset: -1, Err: err}
	if name == "" {
		e.Program = "program"
	}
	var be *bpf.Error
	var ce *convertError
	switch {
	case errors.As(err, &ce):
		e.Offset, e.Field, e.Ins, e.Line, e.Err = ce.slot, ce.field, ce.ins, ce.line, ce.err
	case errors.As(err, &be):
		e.Offset, e.Field, e.Ins = be.Slot, be.Field, be.Insn
	}
	if src != nil && e.Offset >= 0 && e.Offset < len(src.Program.Insns) {
		e.Ins = src.Program.Insns[e.Offset]
		e.Line = src.Line(e.Offset)
		e.around = &around{src, e.Offset}
	}
	return e
}
