package image

import "math/bits"

// bitmap hands out runs of units, lowest address first. A set bit is taken.
//
// Invariant: no free bit lies below low, and no run of tooLong free bits
// exists. Both only cut the search short; taking bits can't break the second,
// freeing bits resets it.
type bitmap struct {
	words   []uint64
	free    int // clear bits
	low     int
	tooLong int
}

// newBitmap returns a bitmap of n free units; n is a multiple of 64.
func newBitmap(n int) bitmap {
	return bitmap{words: make([]uint64, n/64), free: n, tooLong: n + 1}
}

// take marks the first run of n free units as taken and returns its index, or
// -1 if there is none.
func (b *bitmap) take(n int) int {
	if n > b.free || n >= b.tooLong {
		return -1
	}
	size := len(b.words) * 64
	first := b.next(b.low, size, 0)
	if n == 1 { // as for most programs, and there is one
		b.words[first/64] |= 1 << (first & 63)
		b.free--
		b.low = first + 1
		return first
	}
	b.low = first
	for i := first; i+n <= size; {
		end := b.next(i, i+n, 1)
		if end == i+n {
			b.set(i, end)
			b.free -= n
			if i == first {
				b.low = end
			}
			return i
		}
		i = b.next(end, size, 0)
	}
	b.tooLong = n
	return -1
}

// give marks the n units from i, which are taken, as free.
func (b *bitmap) give(i, n int) {
	for j := i; j < i+n; {
		m, next := mask(j, i+n)
		if b.words[j/64]&m != m {
			panic("BUG: image: memory freed twice")
		}
		b.words[j/64] &^= m
		j = next
	}
	b.free += n
	b.low = min(b.low, i)
	b.tooLong = len(b.words)*64 + 1
}

func (b *bitmap) set(i, end int) {
	for i < end {
		m, next := mask(i, end)
		b.words[i/64] |= m
		i = next
	}
}

// next returns the first unit in [i, end) whose bit is as wanted, or end.
func (b *bitmap) next(i, end, bit int) int {
	for i < end {
		m, next := mask(i, end)
		w := b.words[i/64]
		if bit == 0 {
			w = ^w
		}
		if w &= m; w != 0 {
			return i&^63 + bits.TrailingZeros64(w)
		}
		i = next
	}
	return end
}

// mask returns the bits of i's word that lie in [i, end), and the index of
// the first bit behind them.
func mask(i, end int) (m uint64, next int) {
	next = min(i&^63+64, end)
	return ^uint64(0) >> (64 - (next - i)) << (i & 63), next
}
