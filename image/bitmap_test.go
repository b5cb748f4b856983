package image

import (
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestBitmap compares with a search that looks at every unit.
func TestBitmap(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	const size = 256
	for range 200 {
		b := newBitmap(size)
		var model [size]bool
		type run struct{ i, n int }
		var runs []run
		most := 1 + r.IntN(140)
		for range 200 {
			if r.IntN(3) == 0 && len(runs) > 0 {
				k := r.IntN(len(runs))
				b.give(runs[k].i, runs[k].n)
				clear(model[runs[k].i : runs[k].i+runs[k].n])
				runs = slices.Delete(runs, k, k+1)
				continue
			}
			n := 1 + r.IntN(most)
			want := -1
			for i := 0; i+n <= size && want < 0; i++ {
				if !slices.Contains(model[i:i+n], true) {
					want = i
				}
			}
			if got := b.take(n); got != want {
				t.Fatalf("take(%d) = %d, want %d, with %v taken", n, got, want, runs)
			}
			if want >= 0 {
				for i := want; i < want+n; i++ {
					model[i] = true
				}
				runs = append(runs, run{want, n})
			}
		}
		taken := 0
		for _, x := range runs {
			taken += x.n
		}
		if b.free != size-taken {
			t.Fatalf("%d free, want %d", b.free, size-taken)
		}
	}
}

func TestBitmapFreedTwice(t *testing.T) {
	b := newBitmap(128)
	b.take(100)
	b.give(10, 60)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	b.give(60, 20)
}
