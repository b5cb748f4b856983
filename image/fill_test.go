package image

import (
	"bytes"
	"fmt"
	"testing"
)

// fills are the implementations of fill.
var fills = []struct {
	impl string
	fill func([]byte)
}{
	{"default", fill}, // assembly, unless built with purego
	{"generic", fillGeneric},
}

func TestFill(t *testing.T) {
	const margin = 64
	for _, f := range fills {
		for n := range 5000 {
			if n > 300 && n%61 != 0 && n != 2047 && n != 2048 {
				continue
			}
			for align := range 16 {
				b := make([]byte, margin+align+n+margin)
				f.fill(b[margin+align:][:n:n])
				want := make([]byte, len(b))
				copy(want[margin+align:], bytes.Repeat([]byte{0xcc}, n))
				if !bytes.Equal(b, want) {
					t.Fatalf("%s: %d bytes at alignment %d: %x", f.impl, n, align, b)
				}
			}
		}
	}
}

func BenchmarkFill(b *testing.B) {
	for _, f := range fills {
		for _, n := range []int{64, 4096, 64 << 10} {
			b.Run(fmt.Sprintf("impl=%s/bytes=%d", f.impl, n), func(b *testing.B) {
				buf := make([]byte, n)
				b.SetBytes(int64(n))
				for b.Loop() {
					f.fill(buf)
				}
			})
		}
	}
}
