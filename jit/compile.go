package jit

import (
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
	cage    bool
	start   int        // first slot of the function
	insns   []abi.Insn // of the function
	saved   uint8      // which of R6 to R9 the function uses
	notes   bool       // noteConstants has something to do
	args    encoder.Args

	rows     []uint16
	pos      []encoder.Position
	marks    []uint32
	gaps     []uint32 // sizes of the marks
	markSum  []uint32 // fixed sizes of the marks before
	markRank []uint32 // jumps before the mark
	jumps    []jump
	sums     []uint32
	passes   []int
	private  []abi.Insn // the instructions with R10 replaced, or fused
	targets  []bool     // of jumps, by slot
	prologue []byte
	epilogue []byte
	special  []byte

	exit    int // slot of the first EXIT, or -1
	charges []uint32
}

var compilers = sync.Pool{New: func() any { return new(compiler) }}

// release gives the scratch memory back, and lets go of the rest.
func (c *compiler) release() {
	c.profile, c.prog, c.fn, c.insns = nil, nil, nil, nil
	compilers.Put(c)
}

// Compile translates one function of a translated program, as Linux does.
// The program must have passed bpf.Check as Translated. Slots of the result
// and of errors are those of p.
func Compile(p *bpf.Program, profile *Profile, fn *Function) (*Code, error) {
	code := new(Code)
	if err := code.Compile(p, profile, fn); err != nil {
		return nil, err
	}
	return code, nil
}

// Compile does the same in the memory of an older Code, whose contents it
// replaces. After an error the Code has no use but to be compiled again.
func (c *Code) Compile(p *bpf.Program, profile *Profile, fn *Function) error {
	comp := compilers.Get().(*compiler)
	defer comp.release()
	comp.profile, comp.prog, comp.fn, comp.cage = profile, p, fn, false
	c.reset(len(p.Insns))
	return comp.function(c, 0, len(p.Insns))
}

// function compiles slots start to end and appends the result to code.
func (c *compiler) function(code *Code, start, end int) error {
	c.start, c.insns = start, c.prog.Insns[start:end]
	c.saved, c.notes = scan(c.insns)
	c.args = c.profile.args(c.fn)
	if c.fn.PrivateStack != 0 {
		c.replaceFramePointer()
	}
	if c.cage {
		c.fuse()
		c.prologue = c.cagePrologue(c.prologue[:0])
		c.epilogue = c.cageEpilogue(c.epilogue[:0])
	} else {
		c.prologue = c.kernelPrologue(c.prologue[:0])
		c.epilogue = c.kernelEpilogue(c.epilogue[:0])
	}
	if err := c.measure(); err != nil {
		return err
	}
	if err := c.layOutMarks(); err != nil {
		return err
	}
	fixed := c.pos[len(c.insns)].Bytes() + c.markSum[len(c.marks)]
	if err := c.converge(fixed); err != nil {
		return &bpf.Error{Slot: start, Reason: err.Error(), Err: err}
	}
	return c.write(code, end)
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

// measure finds rows, lengths and marks.
func (c *compiler) measure() error {
	n := len(c.insns)
	c.rows = slices.Grow(c.rows[:0], n)[:n]
	c.pos = slices.Grow(c.pos[:0], n+1)[:n+1]
	c.marks = slices.Grow(c.marks[:0], n)[:n]
	c.pos[0] = encoder.Position(len(c.prologue))
	marks, done := encoder.Measure(c.profile.Rows, c.insns, c.rows, c.pos, c.marks)
	if done != n {
		return errorAt(c.prog, c.start+done, "", "has no code in this profile", bpf.ErrUnsupported)
	}
	c.marks = c.marks[:marks]
	return nil
}

// layOutMarks sizes the marks that no distance can change and collects the
// jumps.
func (c *compiler) layOutMarks() error {
	n := len(c.marks)
	c.gaps = slices.Grow(c.gaps[:0], n)[:n]
	c.markSum = slices.Grow(c.markSum[:0], n+1)[:n+1]
	c.markRank = slices.Grow(c.markRank[:0], n+1)[:n+1]
	c.jumps, c.charges, c.exit = c.jumps[:0], c.charges[:0], -1
	var sum uint32
	for k, slot := range c.marks {
		c.markSum[k], c.markRank[k] = sum, uint32(len(c.jumps))
		j, size, err := c.mark(slot)
		if err != nil {
			return err
		}
		if j.size != 0 {
			c.jumps = append(c.jumps, j)
		}
		c.gaps[k] = size
		sum += size
	}
	c.markSum[n], c.markRank[n] = sum, uint32(len(c.jumps))
	for k := range c.jumps {
		j := &c.jumps[k]
		j.end, _ = c.fixed(int(j.slot) + 1)
		j.target, j.rank = c.fixed(int(j.dest))
	}
	c.sums = slices.Grow(c.sums[:0], len(c.jumps)+1)[:len(c.jumps)+1]
	clear(c.sums)
	return nil
}

// fixed returns the bytes before a slot that aren't jumps, and the number of
// jumps there.
func (c *compiler) fixed(slot int) (bytes, jumps uint32) {
	p := c.pos[slot]
	return p.Bytes() + c.markSum[p.Marks()], c.markRank[p.Marks()]
}

// mark sizes a mark; a jump it describes instead.
func (c *compiler) mark(slot uint32) (j jump, size uint32, err error) {
	in := c.insns[slot]
	row := &tables.Rows[c.rows[slot]]
	switch row.Kind {
	case tables.Jcc:
		return jump{slot: slot, dest: uint32(int(slot) + 1 + int(in.Off)), size: longJcc}, 0, nil
	case tables.Ja:
		d := int(in.Off)
		if in.Op == abi.OpGotol {
			d = int(in.Imm)
		}
		return jump{slot: slot, dest: uint32(int(slot) + 1 + d), size: longJa}, 0, nil
	case tables.Charge:
		c.charges = append(c.charges, uint32(c.start)+slot)
		return j, longJcc, nil
	case tables.Special:
		return j, uint32(encoder.Size(row, in)), nil
	}
	if in.Op != abi.OpExit {
		b, err := c.appendSpecial(c.special[:0], int(slot), nil, 0)
		c.special = b[:0]
		return j, uint32(len(b)), err
	}
	switch {
	case c.exit < 0:
		c.exit = int(slot)
		return j, uint32(len(c.epilogue)), nil
	case c.inlineExit():
		return j, uint32(len(c.epilogue)), nil
	}
	return jump{slot: slot, dest: uint32(c.exit), size: longJa, toExit: true}, 0, nil
}

// inlineExit tells whether every EXIT is the whole epilogue: in the cage,
// where that isn't longer than a jump to it.
func (c *compiler) inlineExit() bool { return c.cage && len(c.epilogue) <= longJa }

// write emits the code at the end of code.Bytes.
func (c *compiler) write(code *Code, end int) error {
	k, padding := 0, 0
	for m, slot := range c.marks {
		if k < len(c.jumps) && c.jumps[k].slot == slot {
			c.gaps[m] = c.sums[k+1] - c.sums[k]
			padding += int(c.jumps[k].pad)
			k++
		}
	}
	base := len(code.Bytes)
	total := c.passes[len(c.passes)-1]
	code.Bytes = slices.Grow(code.Bytes, total+encoder.Slack)[:base+total+encoder.Slack]
	out := code.Bytes[base:]
	copy(out, c.prologue)
	ends := code.Ends[c.start:end]
	body := len(c.prologue)
	n := encoder.Emit(out[body:], c.insns, c.rows, c.gaps, ends)
	if n != total-body {
		return &bpf.Error{Slot: c.start, Reason: "BUG: the code has another length than the last pass"}
	}
	for i := range ends {
		ends[i] += uint32(base + body)
	}
	code.Bytes = code.Bytes[:base+total]
	code.Funcs = append(code.Funcs, Func{
		Start: c.start, End: end,
		Entry: uint32(base), Body: uint32(base + body),
		Cold: uint32(base + total), Limit: uint32(base + total),
		Passes: keep(&code.passes, c.passes), Padding: padding, charges: keep(&code.charges, c.charges),
	})
	if err := c.writeMarks(code, ends); err != nil {
		return err
	}
	if c.cage {
		c.appendCold(code)
	} else if c.notes {
		c.noteConstants(code, ends)
	}
	return nil
}

// keep appends a copy of v to arena and returns it.
func keep[T any](arena *[]T, v []T) []T {
	n := len(*arena)
	*arena = append(*arena, v...)
	return (*arena)[n:len(*arena):len(*arena)]
}

// writeMarks fills the rooms that Emit left.
func (c *compiler) writeMarks(code *Code, ends []uint32) error {
	k := 0
	for m, slot := range c.marks {
		row := &tables.Rows[c.rows[slot]]
		room := code.Bytes[ends[slot]-c.gaps[m] : ends[slot]]
		if k < len(c.jumps) && c.jumps[k].slot == slot {
			c.writeJump(room, row, &c.jumps[k])
			k++
			continue
		}
		if row.Kind == tables.Charge {
			continue // appendCold writes it
		}
		b, err := c.appendSpecial(c.special[:0], int(slot), code, ends[slot]-c.gaps[m])
		if err != nil {
			return err
		}
		if len(b) != len(room) {
			return &bpf.Error{Slot: c.start + int(slot), Reason: "BUG: the code has another length than measured"}
		}
		copy(room, b)
		c.special = b[:0]
	}
	return nil
}

// writeJump writes a jump in its final shape, nops before it.
func (c *compiler) writeJump(room []byte, row *tables.Row, j *jump) {
	encoder.PutNop(room, int(j.pad))
	room = room[j.pad:]
	if len(room) == 0 {
		return
	}
	// The room ends where the jump does.
	own := j.end + c.sums[c.rankAfter(j)]
	d := int32(j.target+c.sums[j.rank]) - int32(own)
	if j.toExit {
		row = &jaRow
	}
	encoder.PutJump(room, row, d, j.short)
}

// jaRow is the row of an unconditional jump, for EXITs.
var jaRow = tables.Row{Kind: tables.Ja, Short: 0xeb}

// rankAfter returns the number of jumps up to j, itself included.
func (c *compiler) rankAfter(j *jump) uint32 {
	_, rank := c.fixed(int(j.slot) + 1)
	return rank
}
