package stages

import (
	"errors"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/jit"
)

// encoding calls the encoder as package jit does for a program of the kernel's
// profile, without the jumps between: what fills the gaps is as long as in the
// code that is compiled already.
type encoding struct {
	insns []abi.Insn
	draft encoder.Draft
	gaps  []encoder.Gap
	ends  []uint32
	code  []byte
	size  int
}

func newEncoding(insns []abi.Insn, code *jit.Code) (*encoding, error) {
	e := &encoding{insns: insns, ends: make([]uint32, len(insns)+encoder.EndsSlack)}
	if err := e.write(); err != nil {
		return nil, err
	}
	// A mark takes what its slot has more than its steps.
	body := code.Funcs[0].Body
	for _, m := range e.draft.Marks {
		start := body
		if m.Slot > 0 {
			start = code.Ends[m.Slot-1]
		}
		steps := e.draft.Ends[m.Slot+1] - e.draft.Ends[m.Slot]
		e.gaps = append(e.gaps, encoder.MakeGap(0, code.Ends[m.Slot]-start-steps))
	}
	e.gaps = slices.Grow(e.gaps, 1)
	e.size = int(code.Ends[len(insns)-1] - body)
	e.code = make([]byte, e.size+encoder.Slack)
	return e, e.join()
}

func (e *encoding) write() error {
	if !e.draft.Write(Kernel.Rows, e.insns, false) {
		return errors.New("BUG: drafted less than was compiled")
	}
	return nil
}

func (e *encoding) join() error {
	if e.draft.Join(e.code, 0, e.gaps, e.ends) != e.size {
		return errors.New("BUG: joined another length than was compiled")
	}
	return nil
}
