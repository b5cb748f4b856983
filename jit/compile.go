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
	others  []uint32      // the marks that aren't jumps; see isPlain
	room    int           // marks that all of these, and charges, have memory for
	dense   dense
	passes  []int // in the memory of the Func
	padding int
	steps   int // bytes of the code without the marks that passes visit
	job     passJob

	private []abi.Insn // the instructions with R10 replaced
	fusing  fusing
	frames  [16]kernelFrame // by saved
	special []byte

	charges []charge
}

var compilers = sync.Pool{New: func() any { return new(compiler) }}

// compiler returns one for a program that goes into c. Who compiles into a Code again
// that has one will do so once more: it keeps its compiler then.
func (c *Code) compiler() *compiler {
	if c.own != nil {
		return c.own
	}
	comp := compilers.Get().(*compiler)
	if len(c.Bytes) > 0 {
		c.own = comp
	}
	return comp
}

// release lets go of what is the caller's, and gives back what isn't the Code's own.
func (c *compiler) release(code *Code) {
	c.profile, c.prog, c.fn, c.insns, c.job.insns = nil, nil, nil, nil, nil
	if code.own == nil {
		c.passes, c.job.lengths = nil, nil // the Code's
		compilers.Put(c)
	}
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
	comp := c.compiler()
	comp.profile, comp.prog, comp.fn, comp.cage = profile, p, fn, false
	c.reset(n, 1)
	f := &c.Funcs[0]
	f.Start, f.End = 0, n
	err := comp.function(c, f)
	comp.release(c)
	c.over(Join)
	return err
}

// function compiles the slots of f, one of code.Funcs, and appends what becomes of
// them to code.
func (c *compiler) function(code *Code, f *Func) error {
	c.start, c.insns = f.Start, c.prog.Insns[f.Start:f.End]
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
	c.notePasses(f)
	if err := c.draftAll(ahead); err != nil {
		return err
	}
	code.over(Draft)
	if err := c.converge(condensed); err != nil {
		return &bpf.Error{Slot: c.start, Reason: err.Error(), Err: err}
	}
	code.over(Passes)
	return c.write(code, f)
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

// write joins the code at the end of code.Bytes, fills in what the marks left out,
// and notes in f where the function is.
func (c *compiler) write(code *Code, f *Func) error {
	base, passes, frame := len(code.Bytes), len(c.passes), c.job.frame
	end := base + c.passes[passes-1]
	limit := end + len(c.charges)*coldSize
	if room := limit + encoder.Slack; room > cap(code.Bytes) {
		code.Bytes = slices.Grow(code.Bytes, room-base)
	}
	// One by one: that stores no more than the lengths.
	code.Bytes = code.Bytes[:limit]
	f.Passes = f.Passes[:passes]
	body := base + len(frame.prologue)
	f.Entry, f.Body, f.Cold, f.Limit = uint32(base), uint32(body), uint32(end), uint32(limit)
	f.Padding = c.padding
	all := code.Bytes[:cap(code.Bytes)]
	*(*[usualPrologue]byte)(all[base:]) = frame.head
	if len(frame.prologue) > usualPrologue {
		copy(all[base:], frame.prologue)
	}

	var joint encoder.Joint // one by one, again: a literal is made elsewhere, and copied
	joint.Draft, joint.Code, joint.At, joint.Gaps = &c.draft, all, body, c.gaps
	joint.Ends = code.Ends[:cap(code.Ends)]
	if f.Start > 0 {
		joint.Ends = joint.Ends[f.Start:]
	}
	c.job.done = done{}
	if !joint.Begin() {
		if err := c.joinParts(code, f, &joint); err != nil {
			return err
		}
	}
	if joint.At != end {
		return &bpf.Error{Slot: c.start, Reason: "BUG: the code has another length than the last pass"}
	}
	if n := len(c.others); n > 0 && n+group > cap(code.Relocs)-len(code.Relocs) {
		c.prepareFinish(code)
	}
	c.finishJoined(code, f, len(c.gaps))
	if c.job.done.others < len(c.others) {
		return c.writeOthers(code, f, len(c.gaps))
	}
	return nil
}

// joinMarks is how many marks are joined before what isn't a jump is written there: the
// caches have it still, and what fetches memory ahead isn't led astray too often. A call
// of assembly finishes finishMarks of them.
const (
	joinMarks   = 4096
	finishMarks = 2048
)

// joinParts joins what a call didn't. On the way it writes what isn't a jump, but for
// the last finishMarks.
func (c *compiler) joinParts(code *Code, f *Func, joint *encoder.Joint) error {
	finished := 0
	for over := false; !over; {
		over = joint.Extend()
		stop := joint.Marks
		switch {
		case over:
			c.finishOverlaid(code, f)
			stop -= finishMarks
		case stop < finished+joinMarks:
			continue
		}
		for finished < stop {
			finished = min(finished+finishMarks, stop)
			c.finish(code, f, finished)
			if err := c.writeOthers(code, f, finished); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeOthers writes the listed marks up to a mark, which aren't jumps.
func (c *compiler) writeOthers(code *Code, f *Func, stop int) error {
	behind := c.behind(stop)
	for c.job.done.others < len(c.others) {
		other := c.others[c.job.done.others]
		if other&isPlain != 0 {
			if !c.writeCall(code, f, other, behind) {
				break
			}
			c.job.done.others++
			continue
		}
		k := int(other)
		if k >= stop {
			break
		}
		c.job.done.others++
		slot := int(c.draft.Marks[k].Slot)
		if err := c.writeOther(code, k, slot, code.Ends[c.start+slot]); err != nil {
			return err
		}
	}
	return nil
}

// writeOther writes mark k, which is no plain call, before end.
func (c *compiler) writeOther(code *Code, k, slot int, end uint32) error {
	room := c.gaps[k].Len()
	at := end - room
	row := c.draft.Marks[k].Row()
	if row.Kind == tables.Noted {
		c.note(code, slot, row, end)
		return nil
	}
	b, err := c.appendSpecial(code.Bytes[at:at:end], slot, row, code, at)
	if err == nil && len(b) != int(room) {
		err = &bpf.Error{Slot: c.start + slot, Reason: "BUG: the code has another length than measured"}
	}
	return err
}
