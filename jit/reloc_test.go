package jit

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// TestRelocs: the field of every kind of relocation is where the code has it.
func TestRelocs(t *testing.T) {
	p := &bpf.Program{Insns: []abi.Insn{
		{Op: 0xb7, Imm: 1},
		{Op: abi.OpCall, Imm: 5},
		{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal), Imm: 1},
		{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallKfunc), Imm: 7},
		{Op: abi.OpLdImm64, Regs: abi.Registers(abi.R1, abi.Imm64MapFD), Imm: 3}, {},
		{Op: abi.OpLdImm64, Regs: abi.Registers(abi.R2, abi.Imm64Func), Imm: 1}, {},
		{Op: abi.OpTailCall},
		{Op: abi.OpExit},
	}}
	for _, private := range []uint64{0, 0x60795baffdf8} {
		profile := Linux618
		code, err := Compile(p, &profile, &Function{PrivateStack: private, TailCallReachable: private == 0})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []RelocKind
		for _, r := range code.Relocs {
			kinds = append(kinds, r.Kind)
			size := uint32(4)
			if r.Kind == RelMap {
				size = 8
			}
			// What stands before a field is the opcode that it belongs to.
			before := code.Bytes[r.Offset-1]
			want := map[RelocKind]byte{RelMap: 0xbf, RelFunc: 0xc6}[r.Kind]
			switch r.Kind {
			case RelReturnThunk, RelIndirectThunk:
				want = 0xe9
			case RelHelper, RelKfunc, RelLocal:
				want = 0xe8
			}
			if before != want {
				t.Errorf("reloc %+v: behind %#x, want %#x", r, before, want)
			}
			if r.Slot >= 0 && r.Kind != RelMap && r.Offset+size > code.Ends[r.Slot] {
				t.Errorf("reloc %+v ends behind its slot, at %d", r, code.Ends[r.Slot])
			}
		}
		want := []RelocKind{RelHelper, RelLocal, RelKfunc, RelMap, RelFunc, RelIndirectThunk, RelReturnThunk}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("kinds (-want +got):\n%s", diff)
		}
	}
}
