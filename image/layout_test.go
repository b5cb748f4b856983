package image

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestSizes compares with what was seen on Linux 6.18 (packs) and what its
// page allocator is documented to do.
func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		name         string
		l            layout
		n            int // code and table
		size, starts int
	}{
		{"packs", packLayout, 28, 64, 7},
		{"packs", packLayout, 56, 128, 14},
		{"packs", packLayout, 160, 192, 6},
		{"packs", packLayout, 336, 384, 10},
		{"packs", packLayout, 40, 64, 4}, // the most that a chunk holds
		{"packs", packLayout, 44, 128, 14},
		{"pages", pageLayout, 28, 4096, 1015},
		{"pages", pageLayout, 3960, 4096, 32},
		{"pages", pageLayout, 3964, 8192, 1022},
	} {
		size, hole := tt.l.sizes(tt.n)
		starts := map[int]int{}
		const draws = 1 << 16
		for i := range uint32(draws) {
			// The high bits decide; all of them are tried evenly.
			b := []byte{0, 0, byte(i), byte(i >> 8)}
			s, err := start(hole, bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			starts[s]++
			if s%codeAlign != 0 || s < 0 || headerSize+s+tt.n > size || headerSize+s >= tt.l.unit {
				t.Fatalf("%s: %d bytes: start %d in %d bytes", tt.name, tt.n, s, size)
			}
		}
		if size != tt.size || len(starts) != tt.starts {
			t.Errorf("%s: %d bytes: size %d with %d starts, want %d with %d", tt.name, tt.n, size, len(starts), tt.size, tt.starts)
		}
		even := draws / len(starts)
		for s, n := range starts {
			// The last start may be short of the values that were
			// rounded down to it.
			if s+codeAlign <= hole && (n < even*9/10-2 || n > even*11/10+2) {
				t.Errorf("%s: %d bytes: start %d came up %d times in %d, want about %d", tt.name, tt.n, s, n, draws, even)
			}
		}
	}
}

func TestStartOwnGenerator(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		s, err := start(56, nil)
		if err != nil || s < 0 || s > 52 {
			t.Fatal(s, err)
		}
		seen[s] = true
	}
	// One in 14 missing after 1000 draws has a chance below 10^-31.
	if len(seen) != 14 {
		t.Errorf("saw %d starts of 14", len(seen))
	}
}

func TestStartErrors(t *testing.T) {
	if _, err := start(56, bytes.NewReader(make([]byte, 3))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short source: %v", err)
	}
	own := errors.New("no luck")
	if _, err := start(56, iotest.ErrReader(own)); !errors.Is(err, own) {
		t.Errorf("failing source: %v", err)
	}
}
