package jit

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
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

// TestWriteParts joins functions in one part and in many, of which the last may lie
// over cold code: that of every CHARGE must be whole, and lead back.
func TestWriteParts(t *testing.T) {
	const part = encoder.JoinPart
	for _, n := range []int{1, part - 1, part, part + 1, part + overlaid - 1, 3 * part, joinMarks + finishMarks + 1, 2*joinMarks + overlaid} {
		p := &bpf.Program{}
		for i := range n {
			p.Insns = append(p.Insns, abi.Insn{Op: abi.OpCharge, Imm: int32(i)})
		}
		p.Insns = append(p.Insns, abi.Insn{Op: abi.OpExit})
		p.Flags = make([]bpf.Flag, len(p.Insns))
		code, err := CompileCage(p, &Cage)
		if err != nil {
			t.Fatal(err)
		}
		f := &code.Funcs[0]
		if f.Cold != code.Ends[n] || int(f.Limit) != len(code.Bytes) || code.Bytes[f.Cold-1] != 0xc3 {
			t.Fatalf("%d charges: %+v, %#x before the cold code", n, f, code.Bytes[f.Cold-1])
		}
		for i := range n {
			back, at := code.Ends[i], f.Cold+uint32(i)*coldSize
			jump := le32([]byte{0x0f, 0x82}, int32(at-back))
			want := cold
			copy(want[coldAsks:], le32(nil, int32(i)))
			copy(want[coldBack:], le32(nil, int32(back-at-coldSize)))
			got := code.Bytes[at : at+coldSize]
			if !bytes.Equal(code.Bytes[back-encoder.LongJcc:back], jump) || !bytes.Equal(got, want[:]) || code.Slot(at) != i {
				t.Fatalf("%d charges: of slot %d % x and % x, of slot %d", n, i, code.Bytes[back-encoder.LongJcc:back], got, code.Slot(at))
			}
		}
	}
}
