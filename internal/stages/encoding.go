package stages

import (
	"errors"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/jit"
)

// encoding calls the encoder as package jit does for a program of the kernel's
// profile, without the jumps between: their sizes are those of code that is
// compiled already.
type encoding struct {
	insns []abi.Insn
	rows  []uint16
	pos   []encoder.Position
	marks []uint32
	gaps  []uint32
	ends  []uint32
	code  []byte
	size  int
}

func newEncoding(insns []abi.Insn, code *jit.Code) (*encoding, error) {
	n := len(insns)
	e := &encoding{
		insns: insns,
		rows:  make([]uint16, n),
		pos:   make([]encoder.Position, n+1),
		marks: make([]uint32, n),
		ends:  make([]uint32, n),
	}
	if err := e.measure(); err != nil {
		return nil, err
	}
	// A mark takes what its slot has more than its steps.
	start := code.Funcs[0].Body
	for i, end := range code.Ends {
		before, after := e.pos[i], e.pos[i+1]
		if after.Marks() > before.Marks() {
			e.gaps = append(e.gaps, end-start-(after.Bytes()-before.Bytes()))
		}
		start = end
	}
	e.size = int(start - code.Funcs[0].Body)
	e.code = make([]byte, e.size+encoder.Slack)
	return e, e.emit()
}

func (e *encoding) measure() error {
	if _, end := encoder.Measure(Kernel.Rows, e.insns, e.rows, e.pos, e.marks); end != len(e.insns) {
		return errors.New("BUG: measured less than was compiled")
	}
	return nil
}

func (e *encoding) emit() error {
	if encoder.Emit(e.code, e.insns, e.rows, e.gaps, e.ends) != e.size {
		return errors.New("BUG: emitted another length than was compiled")
	}
	return nil
}
