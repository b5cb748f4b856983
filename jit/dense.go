package jit

// Most marks have one length in all passes but pass 0: those that aren't jumps, and
// jumps ahead over more bytes of draft than short jumps reach, since marks between
// only add to that. In a program that is so long that it takes many passes they are
// left out, and passes visit the others alone, the dense marks.
//
//	jumps          0 1 2 3 4 5 6     every mark
//	               |   |     | |
//	dense.jumps    0   1     2 3     those that may change
//
// Of the marks before mark k let fixed(k) be the bytes of those that don't change,
// and dense(k) the number of those that may. Then
//
//	sums[k] = fixed(k) + dense.sums[dense(k)]
//
// and the distance of jump k to the place behind r marks is
//
//	  dist + sums[r] - sums[k+1]
//	= dist + fixed(r) - fixed(k+1) + dense.sums[dense(r)] - dense.sums[dense(k+1)]
//
// A pass reads sums[r] of its own if r <= k and of the pass before if r > k. As k is
// dense itself, dense(r) <= dense(k) in the first case and not in the second, so a
// pass over the dense marks reads the same mixture: every mark gets the length that
// it has in a pass over all of them.
type dense struct {
	jumps  []jump
	sums   []uint32
	marks  []uint32    // which they are
	before []preceding // by mark, of all

	inUse bool // c.jumps and c.sums are these
}

// preceding is what comes before a mark k: fixed(k) and dense(k).
type preceding struct{ fixed, dense uint32 }

// condensed is from how many marks on it pays: with fewer there are few passes.
const condensed = 4096

// condense makes the passes that follow visit the dense marks alone. It returns the
// bytes of the others. Pass 0 must not have been the last one.
func (c *compiler) condense() (fixed int) {
	d, jumps, sums := &c.dense, c.jumps, c.sums
	n := len(jumps)
	d.before, d.marks = grown(d.before[:0], n+1), grown(d.marks[:0], n)
	before, marks := d.before[:n+1], d.marks[:n]
	longest := c.profile.ShortJumpMax
	var b preceding
	for k := range jumps {
		before[k], marks[b.dense] = b, uint32(k)
		var changes uint32
		if int32(jumps[k].dist) <= longest {
			changes = 1
		}
		b.dense += changes
		b.fixed += (sums[k+1] - sums[k]) & (changes - 1)
	}
	before[n], marks = b, marks[:b.dense]

	d.jumps, d.sums = grown(d.jumps[:0], len(marks)+1)[:len(marks)], grown(d.sums[:0], len(marks)+1)
	for i, k := range marks {
		from, to := &jumps[k], &d.jumps[i]
		target := before[from.rank]
		to.dist = from.dist + target.fixed - before[k+1].fixed
		to.rank, to.vanish, to.size, to.op = target.dense, from.vanish, from.size, from.op
		d.sums[i] = sums[k] - before[k].fixed
	}
	d.sums[len(marks)], d.marks = sums[n]-b.fixed, marks
	c.swapDense()
	return int(b.fixed)
}

// expand goes back to all marks.
func (c *compiler) expand() {
	c.swapDense()
	for k, b := range c.dense.before {
		c.sums[k] = b.fixed + c.dense.sums[b.dense]
	}
}

// swapDense takes the dense marks for all of them, or all for the dense ones.
func (c *compiler) swapDense() {
	d, j := &c.dense, &c.job
	d.inUse = !d.inUse
	c.jumps, d.jumps = d.jumps, c.jumps
	c.sums, d.sums = d.sums, c.sums
	j.count, j.jumps, j.sums = len(c.jumps), &c.jumps[:1][0], &c.sums[0]
}
