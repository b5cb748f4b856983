package bench

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bench/internal/corpus"
)

// corpora calls f for each corpus that is here. The shared one is missing from
// most machines; where BPFJIT_REQUIRE_SHARED is 1 that is an error.
func corpora(b *testing.B, f func(b *testing.B, programs []corpus.Program)) {
	for _, c := range []struct {
		name string
		load func() ([]corpus.Program, error)
	}{
		{"shared", func() ([]corpus.Program, error) {
			programs, _, err := corpus.Shared()
			return programs, err
		}},
		{"generated", func() ([]corpus.Program, error) { return generated(200, 1000) }},
		{"kernels", corpus.Kernels},
	} {
		b.Run("corpus="+c.name, func(b *testing.B) {
			programs, err := c.load()
			if errors.Is(err, fs.ErrNotExist) && !(c.name == "shared" && os.Getenv("BPFJIT_REQUIRE_SHARED") == "1") {
				b.Skip(err)
			} else if err != nil {
				b.Fatal(err)
			}
			f(b, programs)
		})
	}
}

// generated returns n programs of the given number of slots.
func generated(n, slots int) ([]corpus.Program, error) {
	programs := make([]corpus.Program, n)
	for i := range programs {
		insns, err := corpus.Generate(slots, uint64(i))
		if err != nil {
			return nil, err
		}
		programs[i] = corpus.Program{Name: "generated", Insns: insns}
	}
	return programs, nil
}

// report adds the metrics of a compiler that went over slots and wrote code,
// both in total.
func report(b *testing.B, slots, code int) {
	ns := float64(b.Elapsed().Nanoseconds())
	b.ReportMetric(ns/float64(slots), "ns/insn")
	b.ReportMetric(float64(code)/float64(slots), "B/insn")
	b.ReportMetric(float64(code)/1e6/(ns/1e9), "MB/s")
}

// advance is about the number of bytes that a slot of a real program becomes.
const advance = 5

// BenchmarkFloor is the least that any translation of slots to code does: read
// 8 bytes, store 8 bytes, advance.
func BenchmarkFloor(b *testing.B) {
	corpora(b, func(b *testing.B, programs []corpus.Program) {
		var words [][]uint64
		longest := 0
		for _, p := range programs {
			w := make([]uint64, len(p.Insns))
			for k, i := range p.Insns {
				w[k] = uint64(i.Op) | uint64(i.Regs)<<8 | uint64(uint16(i.Off))<<16 | uint64(uint32(i.Imm))<<32
			}
			words = append(words, w)
			longest = max(longest, len(w))
		}
		out := make([]byte, longest*advance+abi.InsnSize)
		slots, bytes := 0, 0
		b.ReportAllocs()
		for b.Loop() {
			for _, w := range words {
				bytes += floor(out, w)
			}
			slots += corpus.Slots(programs)
		}
		report(b, slots, bytes)
	})
}

// floor writes a word every few bytes and returns how far it came.
func floor(out []byte, words []uint64) int {
	at := uint(0)
	for _, w := range words {
		if at+8 > uint(len(out)) {
			panic("BUG: out is too short")
		}
		binary.LittleEndian.PutUint64(out[at:at+8], w)
		at += advance
	}
	return int(at)
}
