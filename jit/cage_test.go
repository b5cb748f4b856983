package jit

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestNoteProbes marks random loads of programs of all lengths around those
// that flags are looked at in.
func TestNoteProbes(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for n := 1; n < 100; n++ {
		p := &bpf.Program{}
		var want []Fault
		for i := range n {
			load := abi.Insn{Op: 0x79, Regs: abi.Registers(uint8(r.IntN(10)), abi.R10), Off: -8}
			p.Insns, p.Flags = append(p.Insns, load), append(p.Flags, bpf.Flag(r.IntN(2)))
			if r.IntN(20) == 0 {
				p.Flags[i] |= bpf.Probe
				want = append(want, Fault{Slot: i, Len: 5, Clear: int8(load.Dst()), Arena: -1})
			}
		}
		p.Insns, p.Flags = append(p.Insns, abi.Insn{Op: abi.OpExit}), append(p.Flags, 0)
		code, err := CompileCage(p, &Cage)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i].Offset = code.Ends[want[i].Slot] - 5
		}
		if d := cmp.Diff(want, code.Faults); d != "" {
			t.Fatalf("%d slots (-want +got):\n%s", n, d)
		}
	}
}
