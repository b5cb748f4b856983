package jit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/encoder"
)

// The passes.
//
// A jump is 2 bytes or 5 or 6, depending on its distance, which depends on the
// sizes of the jumps between. Linux translates the whole program again and
// again until its length doesn't change. Only jumps change between passes, so
// here a pass visits nothing else.
//
// Let addrs[t] be the offset of slot t. Linux updates it in place, so a jump
// reads, in the midst of a pass,
//
//	the target, ahead     addrs of the pass before
//	the target, behind    addrs of this pass
//	its own end           addrs of the pass before
//
// and pass 0 reads an estimate of 64 bytes a slot. addrs[t] splits in two:
// what never changes, and the sizes of the jumps before t:
//
//	addrs[t] = fixed(t) + sums[rank(t)]
//
// sums[k] is the size of the first k jumps. A pass goes through sums from left
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
// every single sum as it left it before; only then bytes are written.

const (
	maxPasses = 20
	estimate  = 64 // bytes a slot, before the first pass
	shortBack = -128

	minusOneJa = ^uint32(1) // -2, the distance of a jump to itself
)

// ErrConvergence is wrapped by errors about programs whose length doesn't
// settle in 20 passes.
var ErrConvergence = errors.New("jit: the length of the code doesn't settle")

// jump is what a pass needs to know of a jump.
type jump struct {
	dist uint32 // fixed bytes from the jump's end to the target
	rank uint32 // jumps before the target
	mark uint32
	size uint8 // bytes of the long form: encoder.LongJa may also vanish
	op   uint8 // of the short form
	pad  uint8 // bytes of nop before it, decided by the last pass
}

// converge runs the passes over c.jumps. It leaves the gaps of the jumps in
// their final shape.
func (c *compiler) converge() error {
	n := len(c.jumps)
	c.sums = slices.Grow(c.sums[:0], n+1)[:n+1]
	fixed, _ := c.fixed(uint32(len(c.insns)))
	c.passes = append(c.passes[:0], int(fixed+c.firstPass()))
	for pass := 1; ; pass++ {
		k := len(c.passes)
		settled := k > 1 && c.passes[k-1] == c.passes[k-2]
		pad := c.profile.PadFrom > 0 && pass >= c.profile.PadFrom
		switch {
		case settled:
			c.passes = append(c.passes, c.passes[k-1])
			return c.lastPass(pad)
		case pass >= maxPasses:
			return fmt.Errorf("%w: %d passes, lengths %v", ErrConvergence, maxPasses, c.passes)
		case pad:
			if err := c.paddedPass(); err != nil {
				return err
			}
		default:
			c.pass()
		}
		c.passes = append(c.passes, int(fixed+c.sums[n]))
	}
}

// firstPass runs pass 0, which also finds out what the others read, and returns
// the sum of all jumps.
func (c *compiler) firstPass() (sum uint32) {
	reach := c.reach()
	sums := c.sums
	for k := range c.jumps {
		j, to := &c.jumps[k], c.dests[k]
		slot := c.draft.Marks[j.mark].Slot
		end, _ := c.fixed(slot + 1)
		target, rank := c.fixed(to.slot)
		j.dist, j.rank = target-end, rank
		sums[k] = sum
		d := estimate * (to.slot - slot - 1)
		switch {
		case to.slot == slot && j.size == encoder.LongJa:
			// A jump to itself has this distance from its end, wherever it is:
			// sums[rank] is what it takes for its end, in every pass.
			d = minusOneJa
			j.dist, j.rank = minusOneJa, uint32(k+1)
		case to.slot <= slot || to.toExit:
			d = target + sums[rank] - estimate*(slot+2)
		}
		sum += j.length(d, reach)
	}
	sums[len(c.jumps)] = sum
	return sum
}

// reach is the number of distances that short jumps have.
func (c *compiler) reach() uint32 { return uint32(c.profile.ShortJumpMax - shortBack) }

// length returns how long a jump of a distance is without padding.
func (j *jump) length(d, reach uint32) uint32 {
	size := uint32(j.size)
	if d+-shortBack <= reach {
		size = encoder.ShortJump
	}
	if d|uint32(j.size^encoder.LongJa) == 0 {
		size = 0
	}
	return size
}

// pass sizes every jump once.
func (c *compiler) pass() {
	reach := c.reach()
	sums := c.sums[:len(c.jumps)+1]
	var sum uint32 // sums[k] of this pass
	for k := range c.jumps {
		j := &c.jumps[k]
		before := sums[k+1] // end of this jump as the pass before left it
		sums[k] = sum
		sum += j.length(j.dist+sums[j.rank]-before, reach)
	}
	sums[len(c.jumps)] = sum
}

// paddedPass does the same, but fills up jumps to the length that they had.
func (c *compiler) paddedPass() error {
	reach := c.reach()
	sums := c.sums
	var sum uint32
	for k := range c.jumps {
		j := &c.jumps[k]
		before := sums[k+1]
		sums[k] = sum
		size := j.length(j.dist+sums[j.rank]-before, reach)
		if size == uint32(j.size) {
			j.pad = 0
			sum += size
			continue
		}
		room := before - sum
		// Of what is there a nop must remain, or nothing.
		if room != size && room != encoder.ShortJump && room != uint32(j.size) {
			return c.misfit(j, int32(room))
		}
		j.pad = uint8(room - size)
		sum += room
	}
	sums[len(c.jumps)] = sum
	return nil
}

// misfit is the error for a jump that leaves room for no nop: code before it
// has grown again.
func (c *compiler) misfit(j *jump, room int32) error {
	return fmt.Errorf("%w: no padding fits %d bytes at the jump of slot %d, lengths %v",
		ErrConvergence, room, c.start+int(c.draft.Marks[j.mark].Slot), c.passes)
}

// lastPass writes the jumps. It must find every one as long as the pass before
// left it.
func (c *compiler) lastPass(pad bool) error {
	reach := c.reach()
	sums := c.sums
	for k := range c.jumps {
		j := &c.jumps[k]
		before := sums[k+1]
		room := before - sums[k]
		d := j.dist + sums[j.rank] - before
		size := j.length(d, reach)
		j.pad = 0
		if room != size {
			fits := pad && room > size && size != uint32(j.size) &&
				(room == encoder.ShortJump || room == uint32(j.size))
			if !fits {
				return fmt.Errorf("%w: equal lengths, other addresses", ErrConvergence)
			}
			j.pad = uint8(room - size)
		}
		c.gaps[j.mark] = encoder.Gap{Bytes: encoder.Jump(j.op, size, uint32(j.pad), int32(d)), Len: room}
	}
	return nil
}

// padding returns how many bytes the last pass padded jumps with.
func (c *compiler) padding() (n int) {
	if len(c.passes) <= c.profile.PadFrom {
		return 0
	}
	for k := range c.jumps {
		n += int(c.jumps[k].pad)
	}
	return n
}
