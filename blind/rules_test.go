package blind

import (
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// TestClasses compares the classes of every opcode and all registers, which are
// put together of halves, with what the forms say.
func TestClasses(t *testing.T) {
	for op := range 256 {
		for regs := range 256 {
			in := bpf.Insn{Op: uint8(op), Regs: uint8(regs)}
			c := classes.of(in.Op, in.Regs)
			for off := range int16(2) { // sdiv and smod have 1
				in.Off = off
				f, ok := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
				if !ok {
					continue
				}
				form := &tables.Forms[f]
				usable := in.Dst() != abi.AX && in.Src() != abi.AX
				want := uint8(0)
				switch form.Blind {
				case tables.BlindAlu32, tables.BlindAlu64:
					want = hideALU
				case tables.BlindMov32, tables.BlindMov64:
					want = hideALU | move
				case tables.BlindJmp32, tables.BlindJmp64:
					want = hideJump
				case tables.BlindStore:
					want = hideStore
				case tables.BlindImm64:
					want = upperHalf
				}
				if form.Blind != tables.BlindImm64 && in.Src() != 0 {
					want = 0 // reserved: not well-formed
				}
				if !usable {
					want = 0
				}
				if c&(hides|move) != want {
					t.Errorf("%s: classes %08b, want %08b", bpf.Text(in), c&(hides|move), want)
				}
				if _, ok := bpf.Distance(in); off == 0 && ok != (c&leads != 0) {
					t.Errorf("%s: classes %08b, and whether it has a distance: %v", bpf.Text(in), c, ok)
				}
			}
		}
	}
}
