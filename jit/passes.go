package jit

import (
	"errors"
	"fmt"
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
	maxPasses  = 20
	estimate   = 64 // bytes a slot, before the first pass
	shortJump  = 2
	longJa     = 5
	longJcc    = 6
	shortBack  = -128
	minusOneJa = -2 // the distance of a jump to itself
)

// ErrConvergence is wrapped by errors about programs whose length doesn't
// settle in 20 passes.
var ErrConvergence = errors.New("jit: the length of the code doesn't settle")

// jump is what a pass needs to know of a jump.
type jump struct {
	end    uint32 // fixed bytes before the jump's end: its own are in sums
	target uint32 // fixed bytes before the target
	rank   uint32 // jumps before the target
	slot   uint32
	dest   uint32 // slot of the target
	size   uint8  // bytes of the long form: longJa may also vanish
	short  bool   // decided by the last pass
	pad    uint8  // bytes of nop before the jump
	toExit bool   // a later EXIT: the target is the epilogue
}

// converge runs the passes over c.jumps. fixed is the number of bytes that
// aren't jumps. It leaves c.sums and the jumps' final shape.
func (c *compiler) converge(fixed uint32) error {
	c.passes = c.passes[:0]
	old, settled := -1, false
	for pass := 0; pass < maxPasses || settled; pass++ {
		changed, err := c.pass(pass)
		if err != nil {
			return err
		}
		length := int(fixed + c.sums[len(c.jumps)])
		c.passes = append(c.passes, length)
		if settled {
			if changed {
				return fmt.Errorf("%w: equal lengths, other addresses", ErrConvergence)
			}
			return nil
		}
		settled = length == old
		old = length
	}
	return fmt.Errorf("%w: %d passes, lengths %v", ErrConvergence, maxPasses, c.passes)
}

// misfit is the error for a jump that leaves room for no nop: code before it
// has grown again.
func (c *compiler) misfit(j *jump, room int32) error {
	return fmt.Errorf("%w: no padding fits %d bytes at the jump of slot %d, lengths %v",
		ErrConvergence, room, c.start+int(j.slot), c.passes)
}

// pass sizes every jump once and reports whether any address changed.
func (c *compiler) pass(pass int) (changed bool, err error) {
	sums := c.sums
	pad := c.profile.PadFrom > 0 && pass >= c.profile.PadFrom
	var sum uint32 // sums[k] of this pass
	for k := range c.jumps {
		j := &c.jumps[k]
		before := sums[k+1] // end of this jump as the pass before left it
		sums[k] = sum
		var d int32
		switch {
		case pass > 0:
			d = int32(j.target+sums[j.rank]) - int32(j.end+before)
		case j.dest > j.slot && !j.toExit:
			d = estimate * int32(j.dest-j.slot-1)
		default:
			d = int32(j.target+sums[j.rank]) - estimate*int32(j.slot+2)
		}
		if j.dest == j.slot && j.size == longJa {
			d = minusOneJa
		}
		j.short = d >= shortBack && d <= c.profile.ShortJumpMax
		j.pad = 0
		size := uint32(j.size)
		room := int32(before - sum)
		switch {
		case d == 0 && j.size == longJa:
			size, j.short = 0, false
			if pad {
				if room != 0 && room != shortJump && room != longJa {
					return false, c.misfit(j, room)
				}
				size, j.pad = uint32(room), uint8(room)
			}
		case j.short:
			size = shortJump
			if pad {
				if room != shortJump && room != int32(j.size) {
					return false, c.misfit(j, room)
				}
				size, j.pad = uint32(room), uint8(room-shortJump)
			}
		}
		sum += size
		changed = changed || sum != before
	}
	changed = changed || sums[len(c.jumps)] != sum
	sums[len(c.jumps)] = sum
	return changed, nil
}
