package jit

import (
	"encoding/binary"
	"fmt"
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
	base := len(code.Bytes)
	end := base + c.passes[len(c.passes)-1]
	limit := end + len(c.charges)*coldSize
	if room := max(limit, end+encoder.Slack); room > cap(code.Bytes) || len(c.passes) > cap(f.Passes) {
		code.grow(f, room, len(c.passes))
	}
	code.Bytes, f.Passes = code.Bytes[:limit], f.Passes[:len(c.passes)]
	keepPasses(f.Passes, c.passes)
	body := base + len(c.frame.prologue)
	if body > base {
		putPrologue(code.Bytes[base:end+encoder.Slack], c.frame.prologue)
	}
	f.Entry, f.Body, f.Cold, f.Limit = uint32(base), uint32(body), uint32(end), uint32(limit)
	f.Padding = c.padding

	var joint encoder.Joint
	joint.Begin(&c.draft, code.Bytes[:cap(code.Bytes)], body, c.gaps, code.Ends[f.Start:cap(code.Ends)])
	var others, charges int
	var err error
	for next := joinMarks; !joint.Extend(); {
		if joint.Marks < next {
			continue
		}
		next += joinMarks
		if others, err = c.writeOthers(code, others, joint.Marks); err != nil {
			return err
		}
		charges = c.writeCharges(code, f, charges, joint.Marks)
	}
	if joint.Len() != end {
		return &bpf.Error{Slot: c.start, Reason: "BUG: the code has another length than the last pass"}
	}
	if charges < len(c.charges) {
		c.writeCharges(code, f, charges, joint.Marks)
	}
	if charges > 0 {
		c.writeOverlaid(code, f)
	}
	if others < len(c.others) {
		_, err = c.writeOthers(code, others, joint.Marks)
	}
	if j := &c.job; j.exitOp == opCall && j.firstExit != noExit {
		end := int(code.Ends[c.start+int(j.firstExit)])
		copy(code.Bytes[end-len(c.frame.epilogue):], c.frame.epilogue)
	}
	return err
}

// joinMarks is how many marks are joined before what isn't a jump is written there: the
// caches have it still, and what fetches memory ahead isn't led astray too often.
const joinMarks = 2048

// Passes are few and prologues are short. How long they are can't be foreseen, and copy
// goes another way for each length, so usual ones are copied with what is behind.
// There is never room for fewer passes: they fill a cache line, of which no other
// processor's Code has a part.
const (
	usualPasses   = 8
	usualPrologue = 32 // bytes
)

// keepPasses copies lengths of passes to where there is room for usualPasses.
func keepPasses(to, from []int) {
	t, f := (*[usualPasses]int)(to[:usualPasses]), (*[usualPasses]int)(from[:usualPasses])
	t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
	if len(from) > usualPasses {
		copy(to, from)
	}
}

// putPrologue copies a prologue to where there is room for usualPrologue.
func putPrologue(to, from []byte) {
	if len(from) > usualPrologue {
		copy(to, from)
		return
	}
	t, f, le := (*[usualPrologue]byte)(to), (*[usualPrologue]byte)(from[:usualPrologue]), binary.LittleEndian
	le.PutUint64(t[:], le.Uint64(f[:]))
	le.PutUint64(t[8:], le.Uint64(f[8:]))
	le.PutUint64(t[16:], le.Uint64(f[16:]))
	le.PutUint64(t[24:], le.Uint64(f[24:]))
}

// writeOthers writes the listed marks, which aren't jumps, from next up to a mark. It
// returns the next one.
func (c *compiler) writeOthers(code *Code, next, stop int) (int, error) {
	for next < len(c.others) {
		k := int(c.others[next] & markOfOther)
		if k >= stop {
			break
		}
		if c.others[next]&isPlain != 0 {
			next = c.writeCalls(code, next, stop)
			continue
		}
		next++
		slot := int(c.draft.Marks[k].Slot)
		end := code.Ends[c.start+slot]
		if err := c.writeOther(code, k, slot, end); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// writeCalls does so for plain calls, as long as there is nothing else.
func (c *compiler) writeCalls(code *Code, next, stop int) int {
	others, marks, ends, b, relocs := c.others, c.draft.Marks, code.Ends, code.Bytes, code.Relocs
	for ; next < len(others); next++ {
		other := others[next]
		k := int(other & markOfOther)
		if other&isPlain == 0 || k >= stop {
			break
		}
		slot := c.start + int(marks[k].Slot)
		end := ends[slot]
		b[end-1] = 0 // the rest of E8 cd is written, with what is far away for cd
		relocs = append(relocs, Reloc{Slot: slot, Offset: end - 4, Kind: callRelocs[other>>plainShift&3]})
	}
	code.Relocs = relocs
	return next
}

// markOfOther is what of an element of others is the number of the mark.
const markOfOther = 1<<plainShift - 1

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
