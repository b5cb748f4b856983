package jit

import (
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// A passJob is what the assembly of the passes works on; gen/asm/passes has the
// offsets.
type passJob struct {
	marks *encoder.Mark
	rows  *tables.Row
	insns *abi.Insn
	ends  *uint32
	ranks *uint32
	jumps *jump
	sums  *uint32
	gaps  *encoder.Gap

	next, count int // in marks: where it goes on, and how many there are
	slots       int // that are drafted
	//lint:ignore U1000 of the assembly
	stop int // the mark where a part ends

	others  *uint32 // what isn't a jump, but for charges: see compiler
	noted   int     // how many of them there are yet
	charges *charge
	charged int // how many of them there are yet

	lengths *int // of the code, by pass
	most    int  // how many passes can run behind pass 0 before they pad, or end
	rounds  int  // how many of them ran

	start     uint32 // what makes an address of an element of ends
	reach     uint32 // number of distances that short jumps have
	firstRank uint32 // ranks[0]
	sum       uint32 // bytes of the marks before next, in pass 0
	shaped    uint32 // how many kinds, from Jcc on, are jumps or something like that
	exit      uint32 // not 0: the next EXIT is so many bytes and no jump
	exits     uint32 // the same of those behind it
	firstExit uint32 // the slot of an EXIT that is no jump, or noExit
	exitOp    uint32 // not 0: EXITs aren't among the others, and have this op

	frame *frame // how the function begins and ends
	done  done   // what finishing has written yet
}

// jumpKinds are Jcc and Ja. Where a call is E8 cd and nothing else it is much the same.
const jumpKinds = uint32(tables.Ja - tables.Jcc + 1)

// plainCalls tells whether calls are nothing but E8 and a distance.
func (j *passJob) plainCalls() bool { return j.shaped > jumpKinds }

// noExit is no slot.
const noExit = ^uint32(0)

// Of the others those that are plain calls are not the number of the mark but all that
// finishing needs to know of one, so that nobody needs to look for that again.
//
//	31  30 29 28 27      0
//	| 1 | src   |  slot  |
const (
	isPlain    = 1 << 31
	plainShift = 28 // of src
	plainSlot  = 1<<plainShift - 1
)

// ahead is how many slots are drafted before their marks are laid out: so many
// that most jumps lead to slots that have a draft, and not so many that the caches
// lose them.
const ahead = 8192

// draftAll writes the draft, and finds out on the way what the passes need to know
// of every mark, and runs pass 0. That follows the draft, some slots behind.
func (c *compiler) draftAll(ahead int) error {
	d := &c.draft
	d.Begin(c.profile.Rows, c.insns, c.fn.PrivateStack != 0)
	for first := true; ; first = false {
		if !d.Extend(ahead) {
			return c.refuse()
		}
		// Where the code begins is known once all registers that the function
		// uses are, and with the next slots there may be others.
		if saved := uint8(d.Class / tables.ClassUsesR6 & 15); first || saved != c.saved {
			c.saved = saved
			c.begin()
		}
		if err := c.layOut(); err != nil {
			if !d.Extend(len(c.insns)) || !c.wellFormed() {
				return c.refuse() // what is not well-formed comes first
			}
			return err
		}
		if d.Slots == len(c.insns) {
			return c.laidOut()
		}
	}
}

// layOut lays out the marks that are drafted. It stops at the first jump to a slot
// that isn't yet.
func (c *compiler) layOut() error {
	c.drafted()
	for {
		if c.layOutJumps(); c.job.next == c.job.count || c.waits() {
			return nil
		}
		if err := c.layOutOther(); err != nil {
			return err
		}
	}
}

// waits tells whether the next mark is a jump to a slot that isn't drafted yet.
func (c *compiler) waits() bool {
	if c.draft.Slots == len(c.insns) {
		return false
	}
	m := c.draft.Marks[c.job.next]
	to := m.Slot + 1 + uint32(int32(c.insns[m.Slot].Off))
	switch m.Row().Kind {
	case tables.Jcc, tables.Ja:
	case tables.Gotol:
		to = m.Slot + 1 + uint32(c.insns[m.Slot].Imm)
	default:
		return false
	}
	return int(to) >= c.draft.Slots && c.leads(to)
}

// begin prepares the frame and the job of the passes.
func (c *compiler) begin() {
	f, j := &cageFrames[c.saved&15], &c.job
	j.next, j.noted, j.charged, j.sum, j.shaped, j.exits = 0, 0, 0, 0, jumpKinds, 0
	j.most, c.padding = c.profile.unpadded(), 0
	j.reach = uint32(c.profile.ShortJumpMax - shortBack)
	switch {
	case c.cage && c.fn.Subprogram:
		f = &subprogramFrames[c.saved&15]
	case !c.cage:
		f = c.kernelFrame()
		if !c.fn.TailCallReachable && c.fn.PrivateStack == 0 {
			j.shaped = jumpKinds + 1
		}
	}
	// The first EXIT is the epilogue, others are jumps to it; in the cage only if
	// these are shorter. Joining writes the cage's ret by the way, and write the only
	// epilogue of the kernel's profile, if it is no jump that someone has to note.
	j.exit, j.firstExit, j.exitOp = uint32(len(f.epilogue)), noExit, 0
	switch {
	case c.cage && j.exit == retSize:
		j.exits, j.exitOp = j.exit, opRet
	case c.cage && j.exit <= encoder.LongJa:
		j.exits = j.exit
	case !c.cage && !c.profile.ReturnThunk:
		j.exitOp = opCall
	}
	j.frame, j.insns = f, &c.insns[0]
}

// drafted takes over what is drafted.
func (c *compiler) drafted() {
	d, j := &c.draft, &c.job
	n := len(d.Marks)
	if n+group > c.room {
		c.grow(n + group)
	}
	c.gaps, c.jumps, c.sums = c.gaps[:n], c.jumps[:n], c.sums[:n+1]
	end, rank := &d.Ends[0], &d.Ranks[0]
	j.count, j.slots = n, d.Slots
	j.start, j.firstRank = uint32(len(c.job.frame.prologue))-*end, *rank
	j.marks, j.ends, j.ranks = &d.Marks[:1][0], end, rank
}

// grow makes room for n marks.
func (c *compiler) grow(n int) {
	j := &c.job
	c.gaps, c.jumps, c.sums = grown(c.gaps, n), grown(c.jumps, n), grown(c.sums, n)
	c.others, c.charges = grown(c.others[:j.noted], n), grown(c.charges[:j.charged], n)
	c.room = min(cap(c.gaps), cap(c.jumps), cap(c.sums), cap(c.others), cap(c.charges))
	j.rows, j.gaps, j.jumps, j.sums = &tables.Rows[0], &c.gaps[0], &c.jumps[0], &c.sums[0]
	j.others, j.charges = &c.others[0], &c.charges[0]
}

// grown returns s with room for n elements, and as many more as append gives.
func grown[E any](s []E, n int) []E { return slices.Grow(s, n-len(s))[:n] }

// laidOut ends what begin began.
func (c *compiler) laidOut() error {
	j := &c.job
	c.sums[j.count] = j.sum
	if j.noted > 0 {
		c.padOthers(j.noted)
	}
	if n := j.charged; n > 0 {
		c.charges[:n+1][n] = c.charges[:n][n-1] // for the same reason
	}
	c.others, c.charges = c.others[:j.noted], c.charges[:j.charged]
	if !c.ends() {
		return c.refuse()
	}
	return nil
}

// padOthers repeats the last of n others behind it: assembly looks at a group at once.
func (c *compiler) padOthers(n int) {
	last := c.others[:n][n-1]
	*(*[group]uint32)(c.others[n : n+group]) = [group]uint32{last, last, last, last, last, last, last, last}
}

// layOutGeneric lays out the marks from c.job.next on, and runs pass 0 on them.
// It stops at the first that isn't a jump by off, nor of a fixed length that the
// job has, or is a jump to nowhere, to what has no draft yet, or to itself.
func (c *compiler) layOutGeneric() {
	j := &c.job
	for ; j.next < j.count; j.next++ {
		k, m := j.next, c.draft.Marks[j.next]
		c.sums[k] = j.sum
		row := m.Row()
		in, size := &c.insns[m.Slot], uint32(encoder.LongJcc)
		switch row.Kind {
		case tables.Jcc:
		case tables.Ja:
			size = encoder.LongJa
		default:
			if size = c.noteFixed(k, m.Slot, row.Kind); size == 0 {
				return
			}
			c.jumps[k] = notJump(k, size)
			j.sum += size
			continue
		}
		to := m.Slot + 1 + uint32(int32(in.Off))
		if int(to) >= j.slots || !c.leads(to) || to == m.Slot {
			return
		}
		c.jumps[k] = c.jumpTo(to, m.Slot, size, row.Short)
		d := estimate * (to - m.Slot - 1)
		if to < m.Slot {
			d = c.distanceBack(&c.jumps[k], m.Slot)
		}
		j.sum += c.jumps[k].length(d, j.reach)
	}
}

// noteFixed notes a mark whose length the job has, and returns it; otherwise 0.
func (c *compiler) noteFixed(k int, slot uint32, kind tables.Kind) (size uint32) {
	j, in := &c.job, &c.insns[slot]
	switch {
	case kind == tables.Charge: // writeCharges writes it
		c.charges = append(c.charges[:j.charged], charge{mark: uint32(k), n: in.Imm})
		j.charged++
		return encoder.LongJcc
	case kind == tables.Call && j.plainCalls():
		c.notePlain(slot, in)
		return callSize
	case in.Op == abi.OpExit && j.exit != 0:
		if j.exitOp == 0 {
			c.noteOther(uint32(k))
		}
		size, j.exit, j.firstExit = j.exit, j.exits, slot
		return size
	}
	return 0
}

// noteOther notes what isn't a jump. There is room for it.
func (c *compiler) noteOther(other uint32) {
	c.others = append(c.others[:c.job.noted], other)
	c.job.noted++
}

// notePlain notes a plain call of a slot.
func (c *compiler) notePlain(slot uint32, in *abi.Insn) {
	c.noteOther(slot | uint32(in.Src())<<plainShift | isPlain)
}

// notJump describes mark k where it isn't a jump, by its length.
func notJump(k int, size uint32) jump {
	j := jump{dist: far, rank: uint32(k + 1), size: uint8(size), op: opCall}
	if size == retSize {
		j.op = opRet
	}
	return j
}

// leads tells whether there is an instruction to jump to at a slot.
func (c *compiler) leads(to uint32) bool {
	return to < uint32(len(c.insns)) && c.insns[to].Op != 0
}

// jumpTo describes a jump of a slot.
func (c *compiler) jumpTo(to, slot, size uint32, op uint8) jump {
	d := &c.draft
	j := jump{
		dist: d.Ends[to] - d.Ends[slot+1], rank: (d.Ranks[to] - d.Ranks[0]) / encoder.MarkSize,
		vanish: far, size: uint8(size), op: op,
	}
	if size == encoder.LongJa {
		j.vanish = 0
	}
	return j
}

// distanceBack returns the distance of a jump back in pass 0: where the target
// is, this pass knows; for the jump's end it has an estimate.
func (c *compiler) distanceBack(j *jump, slot uint32) uint32 {
	target := c.job.start + c.draft.Ends[slot+1] + j.dist
	return target + c.sums[j.rank] - estimate*(slot+2)
}

// layOutOther lays out a mark that layOutJumps leaves.
func (c *compiler) layOutOther() error {
	k := c.job.next
	m := c.draft.Marks[k]
	in, row := &c.insns[m.Slot], m.Row()
	c.sums[k] = c.job.sum
	j := &c.jumps[k]
	var d uint32
	switch {
	case row.Kind == tables.Jcc, row.Kind == tables.Ja, row.Kind == tables.Gotol:
		to, size := m.Slot+1+uint32(int32(in.Off)), uint32(encoder.LongJa)
		switch row.Kind {
		case tables.Jcc:
			size = encoder.LongJcc
		case tables.Gotol:
			to = m.Slot + 1 + uint32(in.Imm)
		}
		if !c.leads(to) {
			return c.refuse()
		}
		*j = c.jumpTo(to, m.Slot, size, row.Short)
		switch {
		case to > m.Slot:
			d = estimate * (to - m.Slot - 1)
		case to == m.Slot && size == encoder.LongJa:
			j.dist, j.rank, d = minusOneJa, uint32(k+1), minusOneJa
		default:
			d = c.distanceBack(j, m.Slot)
		}
	case in.Op == abi.OpExit:
		*j = c.jumpTo(c.job.firstExit, m.Slot, encoder.LongJa, opJmp8)
		d = c.distanceBack(j, m.Slot)
	default:
		size, err := c.other(k, m)
		if err != nil {
			return err
		}
		*j, d = notJump(k, size), far
		if uint32(j.size) != size {
			return &bpf.Error{Slot: c.start + int(m.Slot), Insn: *in, Reason: fmt.Sprintf("BUG: its code has %d bytes", size)}
		}
	}
	c.job.sum += j.length(d, c.job.reach)
	c.job.next++
	return nil
}

// opJmp8 is the opcode of an unconditional jump of two bytes; opCall is such a
// one that encoder.Jump makes E8, a call, of as it makes E9 of opJmp8; opRet is the
// epilogue of the cage's main function, the one mark of a single byte: encoder.Jump
// writes it as it is.
const (
	opJmp8 = 0xeb
	opCall = 0xe8 ^ 0xe9 ^ 0xeb
	opRet  = 0xc3

	retSize = 1
)

// ends tells whether the function ends in an instruction that nothing follows.
func (c *compiler) ends() bool {
	switch c.insns[len(c.insns)-1].Op {
	case abi.OpExit, abi.OpJa, abi.OpGotol:
		return true
	case abi.OpCall, abi.OpTailCall:
		return !c.cage
	}
	return c.cage // lower may put instructions behind the last one
}

// other sizes a mark that isn't a jump.
func (c *compiler) other(k int, m encoder.Mark) (size uint32, err error) {
	in, row := &c.insns[m.Slot], m.Row()
	if row.Kind == tables.Call && c.job.plainCalls() {
		c.notePlain(m.Slot, in)
		return callSize, nil
	}
	c.noteOther(uint32(k))
	switch {
	case row.Kind == tables.Noted:
		return 0, nil
	case row.Kind == tables.Special && isProbe(*in) && in.Dst() > abi.R9:
		return 0, errorAt(c.prog, c.start+int(m.Slot), "dst", "is a register that a fault can't clear", nil)
	case row.Kind == tables.Special:
		return uint32(row.Size), nil
	}
	b, err := c.appendSpecial(c.special[:0], int(m.Slot), row, nil, 0)
	c.special = b[:0]
	return uint32(len(b)), err
}

// callSize is the length of E8 cd, a call, in bytes.
const callSize = 5
