package jit

import (
	"errors"
	"fmt"

	"github.com/bpfjit/bpfjit/encoder"
)

// The passes.
//
// A jump is 2 bytes or 5 or 6, depending on its distance, which depends on the
// sizes of the jumps between. Linux translates the whole program again and
// again until its length doesn't change. Only jumps change between passes, so
// here a pass visits nothing but the marks: jumps, and what else the draft
// leaves out, whose length is fixed.
//
// Let addrs[t] be the offset of slot t. Linux updates it in place, so a jump
// reads, in the midst of a pass,
//
//	the target, ahead     addrs of the pass before
//	the target, behind    addrs of this pass
//	its own end           addrs of the pass before
//
// and pass 0 reads an estimate of 64 bytes a slot. addrs[t] splits in two: the
// draft, which never changes, and the sizes of the marks before t:
//
//	addrs[t] = draft(t) + sums[rank(t)]
//
// sums[k] is the size of the first k marks. A pass goes through sums from left
// to right and overwrites it, which gives every read just the state above.
//
// Termination. From pass 15 on jumps that get shorter are padded with a nop to
// where they ended before, so lengths stop shrinking; a program that hasn't
// settled after 20 passes is refused. Two jumps across each other, one ahead
// and one back, can make each other longer and shorter for ever where short
// jumps go up to 127 bytes; up to 123 = 127-4 two can't. More than two still
// can (testprog.Restless): code that grows again leaves a padded jump no room
// that a nop fits, and the program is refused then.
//
// Correctness. An equal length is not a fixed point yet (CVE-2021-29154): two
// jumps may have changed in opposite ways. The last pass must therefore find
// every single sum as it left it before; only then bytes are written. That pass
// changes nothing, so it can look at jumps in any order, and at a group at once.
// If it finds all so before two lengths are equal, the pass between would have.

const (
	maxPasses = 20
	estimate  = 64 // bytes a slot, before the first pass
	shortBack = -128

	minusOneJa = ^uint32(1) // -2, the distance of a jump to itself
)

// ErrConvergence is wrapped by errors about programs whose length doesn't
// settle in 20 passes.
var ErrConvergence = errors.New("jit: the length of the code doesn't settle")

// maxTries is how often Retry calls at most.
const maxTries = 10

// Retry calls compile until it returns no ErrConvergence, ten times at most. It is
// for blinded programs, each time by other random numbers: of a million slots the
// length doesn't settle now and then, and does another time.
func Retry(compile func() error) (err error) {
	for range maxTries {
		if err = compile(); !errors.Is(err, ErrConvergence) {
			break
		}
	}
	return err
}

// jump is what a pass needs to know of a mark. A mark that isn't a jump is one
// to a place that is far away from its end wherever that is; a jump to itself
// is as near to it. Both say so by a rank that makes sums[rank] their own end.
type jump struct {
	dist   uint32 // bytes from the jump's end to the target, without marks
	rank   uint32 // marks before the target
	vanish uint32 // the distance at which it takes no bytes; far: none
	size   uint8  // bytes of the long form
	op     uint8  // of the short form
}

// far is the dist of what isn't a jump: no code is so long. The last pass writes 0 in its
// place.
const far = 1 << 30

// partMarks is how many marks a call of assembly looks at: it can't be preempted, and
// the collector should not have to wait for more than some microseconds. Pass 0, which
// lays them out, takes several times as long as another. A call runs all passes over
// fewer than shortMarks.
const (
	partMarks   = 4096
	layOutMarks = 2048
	shortMarks  = partMarks / maxPasses
)

// group is how many jumps assembly writes at once. Lists by mark have room for so many
// more.
const group = 8

// passesRoom is how many passes there is room for: all that there can be, and two more,
// which assembly may write. They fill cache lines, of which no other processor's Code has
// a part.
const passesRoom = maxPasses + 4

// notePasses has passes noted in f.
func (c *compiler) notePasses(f *Func) {
	if cap(f.Passes) < passesRoom {
		f.Passes = make([]int, 0, passesRoom)
	}
	c.passes = f.Passes[:0]
	c.job.lengths = &c.passes[:1][0]
}

// converge runs the passes over c.jumps, of which layOut has run the first. It
// leaves the gaps of the jumps in their final shape. From condensed marks on it
// leaves out those that don't change; see dense.
func (c *compiler) converge(condensed int) error {
	j := &c.job
	j.rounds = 0
	if n := j.count; 0 < n && n < min(condensed, shortMarks) && j.most > 0 && c.shortPasses() {
		c.passes = c.passes[:j.rounds+2]
		return nil
	}
	return c.goOn(condensed)
}

// withoutMarks returns how long the code is without its marks.
func (c *compiler) withoutMarks() int { return int(c.job.start + c.draft.Ends[c.draft.Slots]) }

// unpadded returns how many passes can run behind pass 0 before they pad, or end.
func (p *Profile) unpadded() int {
	if p.PadFrom <= 0 {
		return maxPasses - 1
	}
	return min(p.PadFrom, maxPasses) - 1
}

// goOn runs the passes that are left when c.job.rounds of them ran behind pass 0.
func (c *compiler) goOn(condensed int) error {
	c.steps = c.withoutMarks()
	if c.passes = c.passes[:1+c.job.rounds]; c.job.rounds == 0 {
		c.passes[0] = c.length()
	}
	err := c.settle(condensed)
	if c.dense.inUse {
		c.expand()
	}
	if err != nil {
		return err
	}
	pass := len(c.passes)
	c.passes = append(c.passes, c.passes[pass-1])
	return c.lastPass(c.pads(pass))
}

// pads tells whether a pass pads jumps.
func (c *compiler) pads(pass int) bool { return c.profile.PadFrom > 0 && pass >= c.profile.PadFrom }

// settled tells whether the length of the code was the same twice.
func (c *compiler) settled() bool {
	n := len(c.passes)
	return n > 1 && c.passes[n-1] == c.passes[n-2]
}

// settle runs passes until the length of the code is the same twice.
func (c *compiler) settle(condensed int) error {
	for !c.settled() {
		pass := len(c.passes)
		if pass == maxPasses {
			return fmt.Errorf("%w: %d passes, lengths %v", ErrConvergence, maxPasses, c.passes)
		}
		if pass == 2 && len(c.jumps) >= condensed {
			c.steps += c.condense()
		}
		if !c.pads(pass) {
			c.pass()
		} else if err := c.paddedPass(); err != nil {
			return err
		}
		c.passes = append(c.passes, c.length())
	}
	return nil
}

// length returns how long the code is as the last pass left it.
func (c *compiler) length() int { return c.steps + int(c.sums[len(c.jumps)]) }

// passesGeneric runs passes over all jumps until the length of the code is what the
// pass before left, and the last one. It writes the lengths to c.passes, and leaves in
// c.job.rounds how many passes ran before the last one. It returns false if there would
// be more than c.job.most, or the last one finds other addresses.
func (c *compiler) passesGeneric() (ok bool) {
	j := &c.job
	c.steps = c.withoutMarks()
	c.passes, j.rounds = append(c.passes[:0], c.length()), 0
	for ; !c.settled(); j.rounds++ {
		if j.rounds == j.most {
			return false
		}
		c.passGeneric()
		c.passes = append(c.passes, c.length())
	}
	j.next = 0
	c.passes = append(c.passes, c.passes[j.rounds])
	c.lastPassGeneric()
	return j.next == len(c.jumps)
}

// length returns how long a jump of a distance is without padding.
func (j *jump) length(d, reach uint32) uint32 {
	size := uint32(j.size)
	if d+-shortBack <= reach {
		size = encoder.ShortJump
	}
	if d == j.vanish {
		size = 0
	}
	return size
}

// passGeneric sizes every jump once.
func (c *compiler) passGeneric() {
	var sum uint32           // sums[k] of this pass
	for k := range c.jumps { // sums[k+1] is where the pass before left the jump's end
		j := &c.jumps[k]
		before := c.sums[k+1]
		c.sums[k] = sum
		sum += j.length(j.dist+c.sums[j.rank]-before, c.job.reach)
	}
	c.sums[len(c.jumps)] = sum
}

// paddedPass does the same, but fills up jumps to the length that they had.
func (c *compiler) paddedPass() error {
	jumps, sums := c.jumps, c.sums
	var sum uint32
	for k := range jumps {
		j := &jumps[k]
		before := sums[k+1]
		sums[k] = sum
		size := j.length(j.dist+sums[j.rank]-before, c.job.reach)
		if size != uint32(j.size) {
			room := before - sum
			if !j.fits(size, room) {
				return c.misfit(k, int32(room))
			}
			size = room
		}
		sum += size
	}
	sums[len(jumps)] = sum
	return nil
}

// fits tells whether the room that a jump took in the pass before can be filled
// with a jump of a size: it must have been as long as jumps can be, so that a nop
// fits what is left, or nothing is.
func (j *jump) fits(size, room uint32) bool {
	return room == size || room == encoder.ShortJump || room == uint32(j.size)
}

// misfit is the error for a jump that leaves room for no nop: code before it
// has grown again.
func (c *compiler) misfit(k int, room int32) error {
	if c.dense.inUse {
		k = int(c.dense.marks[k])
	}
	return fmt.Errorf("%w: no padding fits %d bytes at the jump of slot %d, lengths %v",
		ErrConvergence, room, c.start+int(c.draft.Marks[k].Slot), c.passes)
}

// lastPass writes the jumps into the gaps. It must find every one as long as the
// pass before left it; c.padding becomes the number of bytes that jumps were
// padded with. A mark that isn't a jump gets a gap of its length, and whatever
// bytes: they are written later.
func (c *compiler) lastPass(pad bool) error {
	for c.job.next = 0; ; c.job.next++ {
		c.writeJumps()
		k := c.job.next
		if k == len(c.jumps) {
			return nil
		}
		j := &c.jumps[k]
		d, room := c.distance(k)
		size := j.length(d, c.job.reach)
		if !pad || size == uint32(j.size) || !j.fits(size, room) {
			return fmt.Errorf("%w: equal lengths, other addresses", ErrConvergence)
		}
		c.padding += int(room - size)
		c.gaps[k] = encoder.MakeGap(encoder.Jump(j.op, size, room-size, int32(d)), room)
	}
}

// distance returns the distance of a jump, and its length.
func (c *compiler) distance(k int) (d, room uint32) {
	j := &c.jumps[k]
	end := c.sums[k+1]
	return j.dist + c.sums[j.rank] - end, end - c.sums[k]
}

// lastPassGeneric writes the jumps from c.job.next on. It stops at the first
// whose length isn't what the pass before left.
func (c *compiler) lastPassGeneric() {
	for ; c.job.next < len(c.jumps); c.job.next++ {
		k := c.job.next
		j := &c.jumps[k]
		d, room := c.distance(k)
		if j.length(d, c.job.reach) != room {
			return
		}
		if d == far {
			d = 0
		}
		c.gaps[k] = encoder.MakeGap(encoder.Jump(j.op, room, 0, int32(d)), room)
	}
}
