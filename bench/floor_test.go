package bench

import (
	"encoding/binary"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// advance is about the number of bytes that a slot of a real program becomes.
const advance = 5

// BenchmarkFloor is the least that any translation of slots to code does: read
// 8 bytes, store 8 bytes, advance. Its sweeps take turns with sweeps of the
// compiler, kernel profile and cold: emit/floor is the ratio of the least
// disturbed ones.
func BenchmarkFloor(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		set := newSet(b, stages.Options{}, programs)
		longest := 0
		for _, p := range set.programs {
			longest = max(longest, len(p.insns))
		}
		out := make([]byte, longest*advance+abi.InsnSize)
		bytes := 0
		floorSweep := func() error {
			bytes = 0
			for _, p := range set.programs {
				bytes += floor(out, p.slots)
			}
			return nil
		}
		var c stages.Compiler
		s := sweep(b, minSweeps, floorSweep, func() error { return set.compile(&c, 1, nil) })
		s[0].report(b, len(set.programs), set.slots, bytes)
		b.ReportMetric(float64(s[1].least)/float64(s[0].least), "emit/floor")
	})
}

// floor writes a word every few bytes and returns how far it came.
func floor(out, slots []byte) int {
	at := uint(0)
	for ; len(slots) >= abi.InsnSize; slots = slots[abi.InsnSize:] {
		if at+8 > uint(len(out)) {
			panic("BUG: out is too short")
		}
		binary.LittleEndian.PutUint64(out[at:at+8], binary.LittleEndian.Uint64(slots))
		at += advance
	}
	return int(at)
}
