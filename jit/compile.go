package jit

import (
	"fmt"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// compiler holds the state of one function's compilation, and the scratch
// memory, which is used again.
type compiler struct {
	profile *Profile
	prog    *bpf.Program
	fn      *Function
	part    Function // what fn points to in the cage
	cage    bool
	start   int        // first slot of the function
	insns   []abi.Insn // of the function
	saved   uint8      // which of R6 to R9 the function uses

	draft   encoder.Draft
	gaps    []encoder.Gap // by mark
	jumps   []jump        // by mark
	sums    []uint32      // by mark
	others  []uint32      // the marks that aren't jumps
	room    int           // marks that all of these, and charges, have memory for
	dense   dense
	passes  []int
	padding int
	job     passJob

	private []abi.Insn // the instructions with R10 replaced
	fusing  fusing
	frame   *frame
	frames  [16]kernelFrame // by saved
	special []byte

	charges []charge
}

var compilers = sync.Pool{New: func() any { return new(compiler) }}

// release gives the scratch memory back, and lets go of the rest.
func (c *compiler) release() {
	c.profile, c.prog, c.fn, c.insns, c.job.insns = nil, nil, nil, nil, nil
	compilers.Put(c)
}

// Compile translates one function of a translated program, as Linux does.
// Slots of the result and of errors are those of p.
//
// A program that isn't well-formed gets the error of bpf.Check. It needn't have
// been checked before: what Check asks for, the compiler sees anyway. Only marks as a
// Probe mean nothing to it, wherever they stand.
func Compile(p *bpf.Program, profile *Profile, fn *Function) (*Code, error) {
	code := new(Code)
	if err := code.Compile(p, profile, fn); err != nil {
		return nil, err
	}
	return code, nil
}

// maxSlots is the largest number of slots whose code is surely shorter than
// what the passes take for infinite. It leaves room for blinding programs of
// bpf.MaxSlots.
const maxSlots = far / encoder.Longest

// Compile does the same in the memory of an older Code, whose contents it
// replaces. After an error the Code has no use but to be compiled again.
func (c *Code) Compile(p *bpf.Program, profile *Profile, fn *Function) error {
	comp := compilers.Get().(*compiler)
	comp.profile, comp.prog, comp.fn, comp.cage = profile, p, fn, false
	err := comp.kernel(c)
	comp.release()
	return err
}

// kernel compiles the program, which is one function.
func (c *compiler) kernel(code *Code) error {
	p := c.prog
	n := len(p.Insns)
	if n > maxSlots {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, more than %d", n, maxSlots)}
	}
	if n == 0 {
		return bpf.Check(p, bpf.Translated)
	}
	if err := p.CheckSizes(); err != nil {
		return err
	}
	code.reset(n)
	return c.function(code, 0, n)
}

// function compiles slots start to end and appends the result to code.
func (c *compiler) function(code *Code, start, end int) error {
	c.start, c.insns = start, c.prog.Insns[start:end]
	if c.fn.PrivateStack != 0 {
		// With R10 replaced nobody sees that something writes it.
		if !c.draft.Write(c.profile.Rows, c.insns, false) {
			return c.refuse()
		}
		c.replaceFramePointer()
	}
	if c.cage {
		c.fuse()
	}
	if err := c.draftAll(ahead); err != nil {
		return err
	}
	code.over(Draft)
	if err := c.converge(condensed); err != nil {
		return &bpf.Error{Slot: start, Reason: err.Error(), Err: err}
	}
	code.over(Passes)
	if err := c.write(code, end); err != nil {
		return err
	}
	code.over(Join)
	return nil
}

// refuse returns the error for a function that has no draft, or a jump to
// nowhere.
func (c *compiler) refuse() error {
	long := len(c.prog.Insns) > bpf.MaxSlots // a blinded program: Check refuses all of them
	if !c.cage && !long {
		if err := bpf.Check(c.prog, bpf.Translated); err != nil {
			return err
		}
	}
	for i, in := range c.insns {
		if encoder.RowOf(c.profile.Rows, in).Kind == tables.None {
			return errorAt(c.prog, c.start+i, "", "has no code in this profile", bpf.ErrUnsupported)
		}
	}
	if long {
		return &bpf.Error{Slot: -1, Reason: "isn't well-formed"}
	}
	return &bpf.Error{Slot: c.start, Reason: "BUG: a function that was not checked"}
}

// wellFormed tells whether a program whose slots are has jumps that lead somewhere,
// and an end.
func (c *compiler) wellFormed() bool {
	return c.cage || len(c.prog.Insns) > bpf.MaxSlots || bpf.Check(c.prog, bpf.Translated) == nil
}

// replaceFramePointer makes every R10 the register of the private stack.
func (c *compiler) replaceFramePointer() {
	c.private = append(c.private[:0], c.insns...)
	for i := range c.private {
		in := &c.private[i]
		dst, src := in.Dst(), in.Src()
		if dst == abi.R10 {
			dst = tables.PrivateFrame
		}
		if src == abi.R10 {
			src = tables.PrivateFrame
		}
		in.Regs = abi.Registers(dst, src)
	}
	c.insns = c.private
}

// write joins the code at the end of code.Bytes and fills in what the marks
// left out.
func (c *compiler) write(code *Code, end int) error {
	base := len(code.Bytes)
	total := c.passes[len(c.passes)-1]
	code.Bytes = slices.Grow(code.Bytes, total+encoder.Slack)[:base+total+encoder.Slack]
	body := base + copy(code.Bytes[base:], c.frame.prologue)
	var joint encoder.Joint
	joint.Begin(&c.draft, code.Bytes, body, c.gaps, code.Ends[c.start:end+encoder.EndsSlack])
	n := base + total
	// What isn't a jump is written some thousand marks behind.
	others, charges, done := c.others, 0, false
	first := len(code.charges)
	for !done {
		done = joint.Extend(ahead / 4)
		var err error
		if others, err = c.writeOthers(code, others, joint.Marks); err != nil {
			return err
		}
		if len(c.charges) > 0 {
			charges = c.writeCharges(code, charges, joint.Marks, uint32(n))
		}
	}
	if joint.Len() != n {
		return &bpf.Error{Slot: c.start, Reason: "BUG: the code has another length than the last pass"}
	}
	code.Bytes = code.Bytes[:n]
	// Field by field: a literal would be copied, by loads that wait for its stores.
	code.Funcs = append(code.Funcs, Func{})
	f := &code.Funcs[len(code.Funcs)-1]
	f.Start, f.End = c.start, end
	f.Entry, f.Body, f.Cold, f.Limit = uint32(base), uint32(body), uint32(n), uint32(n)
	f.Passes, f.Padding, f.charges = keep(&code.passes, c.passes), c.padding, code.charges[first:len(code.charges):len(code.charges)]
	if len(c.charges) > 0 {
		c.appendCold(code)
	}
	return nil
}

// keep appends a copy of v to arena and returns it.
func keep[T any](arena *[]T, v []T) []T {
	n := len(*arena)
	*arena = append(*arena, v...)
	return (*arena)[n:len(*arena):len(*arena)]
}

// writeOthers writes the listed marks, which aren't jumps, up to a mark. It returns
// the others.
func (c *compiler) writeOthers(code *Code, others []uint32, stop int) ([]uint32, error) {
	marks, ends := c.draft.Marks, code.Ends[c.start:]
	for i, other := range others {
		k := int(other & (1<<plainShift - 1))
		if k >= stop {
			return others[i:], nil
		}
		slot := int(marks[k].Slot)
		end := ends[slot]
		if other&isPlain == 0 {
			if err := c.writeOther(code, slot, marks[k].Row(), c.gaps[k].Len(), end); err != nil {
				return nil, err
			}
			continue
		}
		code.Bytes[end-1] = 0 // the rest of E8 cd is written, with what is far away for cd
		code.Relocs = append(code.Relocs, Reloc{Slot: c.start + slot, Offset: end - 4, Kind: callRelocs[other>>plainShift&3]})
	}
	return nil, nil
}

// writeOther writes a mark that is no plain call, into a room before end.
func (c *compiler) writeOther(code *Code, slot int, row *tables.Row, room, end uint32) error {
	at := end - room
	switch {
	case row.Kind == tables.Noted:
		c.note(code, slot, row, end)
		return nil
	case c.insns[slot].Op == abi.OpExit && !c.profile.ReturnThunk:
		copy(code.Bytes[at:end], c.frame.epilogue)
		return nil
	}
	b, err := c.appendSpecial(code.Bytes[at:at:end], slot, row, code, at)
	if err == nil && len(b) != int(room) {
		err = &bpf.Error{Slot: c.start + slot, Reason: "BUG: the code has another length than measured"}
	}
	return err
}
