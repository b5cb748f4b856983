package stages

import (
	"errors"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/jit"
)

// encoding is what the encoder joins for a program of the kernel's profile,
// without the passes between: what fills the gaps is as long as in the code
// that is compiled already.
type encoding struct {
	insns []abi.Insn
	draft encoder.Draft
	gaps  []encoder.Gap
	size  int // of the code
}

func newEncoding(insns []abi.Insn, code *jit.Code) (*encoding, error) {
	e := &encoding{insns: insns}
	if err := write(&e.draft, insns); err != nil {
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
	return e, new(joined).join(e)
}

// joined calls the encoder as package jit does, in memory that it uses again.
type joined struct {
	draft encoder.Draft
	ends  []uint32
	code  []byte
}

func (j *joined) write(insns []abi.Insn) error { return write(&j.draft, insns) }

func write(d *encoder.Draft, insns []abi.Insn) error {
	if !d.Write(Kernel.Rows, insns, false) {
		return errors.New("BUG: drafted less than was compiled")
	}
	return nil
}

func (j *joined) join(e *encoding) error {
	j.ends = slices.Grow(j.ends[:0], len(e.insns)+encoder.EndsSlack)
	j.code = slices.Grow(j.code[:0], e.size+encoder.Slack)
	if e.draft.Join(j.code[:cap(j.code)], 0, e.gaps, j.ends[:len(e.insns)+encoder.EndsSlack]) != e.size {
		return errors.New("BUG: joined another length than was compiled")
	}
	return nil
}
