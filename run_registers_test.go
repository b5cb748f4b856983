package bpfjit_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
)

// TestRegistersShowNothing: a program that stores all its registers, at entry,
// behind a helper and in a function, finds guest addresses and numbers that
// are the same in every run, never an address of the host.
func TestRegistersShowNothing(t *testing.T) {
	store := func(base string, at int) string {
		var b strings.Builder
		for r := range 11 {
			fmt.Fprintf(&b, "*(u64 *)(%s + %d) = r%d\n", base, at+8*r, r)
		}
		return b.String()
	}
	text := store("r1", 0) +
		"r6 = r1\nr7 = 7\n" +
		"call 1000\n" +
		store("r6", 88) +
		"r1 = r6\n" +
		"call pc+1\n" +
		"exit\n" +
		store("r1", 176) +
		"r0 = 0\nexit"
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, text, helper(func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 5, nil }))
		want := [33]uint64{
			1: abi.MemBase, 2: 264, 10: abi.StackTop,
			11: 5, 17: abi.MemBase, 18: 7, 21: abi.StackTop,
			22: 5, 23: abi.MemBase, 28: abi.MemBase, 29: 7, 32: abi.StackTop - abi.FrameSize,
		}
		for range 3 {
			mem := make([]byte, 264)
			if _, err := p.Run(mem); err != nil {
				t.Fatal(err)
			}
			var got [33]uint64
			for k := range got {
				got[k] = binary.LittleEndian.Uint64(mem[8*k:])
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("(-want +got)\n%s", d)
			}
		}
	})
}
