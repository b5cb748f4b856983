package oracle

import (
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/kernel"
)

// TestSmall compares programs that need something special: a function of its
// own, tail calls, maps, helpers.
func TestSmall(t *testing.T) {
	kernel.Require(t)
	k, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	array, err := kernel.NewMap(kernel.MapSpec{Type: kernel.ArrayMap, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer array.Close()
	progs, err := kernel.NewMap(kernel.MapSpec{Type: kernel.ProgArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer progs.Close()
	mapFD := func(dst uint8, m *kernel.Map) []abi.Insn {
		return []abi.Insn{{Op: abi.OpLdImm64, Regs: abi.Registers(dst, abi.Imm64MapFD), Imm: int32(m.FD())}, {}}
	}
	exit := abi.Insn{Op: abi.OpExit}
	zero := abi.Insn{Op: 0xb7}
	for _, test := range []struct {
		name  string
		insns []abi.Insn
	}{
		{"return 0", []abi.Insn{zero, exit}},
		{"helper", []abi.Insn{{Op: abi.OpCall, Imm: 5}, exit}},
		{"function", []abi.Insn{
			{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal), Imm: 2}, zero, exit,
			{Op: 0x7a, Regs: 10, Off: -16, Imm: -1}, {Op: 0xb7, Regs: 6, Imm: 7}, {Op: 0xbf, Regs: 0x60}, exit,
		}},
		{"map lookup", append(append([]abi.Insn{
			{Op: 0x62, Regs: 10, Off: -4}, {Op: 0xbf, Regs: 0xa2}, {Op: 0x07, Regs: 2, Imm: -4},
		}, mapFD(1, array)...), abi.Insn{Op: abi.OpCall, Imm: 1}, zero, exit)},
		{"tail call, index known", append(append([]abi.Insn{{Op: 0xb7, Regs: 3, Imm: 1}},
			mapFD(2, progs)...), abi.Insn{Op: abi.OpCall, Imm: 12}, zero, exit)},
		{"tail call, index not known", append(append([]abi.Insn{{Op: 0xbf, Regs: 0x16}, {Op: abi.OpCall, Imm: 7}, {Op: 0xbf, Regs: 0x03}, {Op: 0xbf, Regs: 0x61}},
			mapFD(2, progs)...), abi.Insn{Op: abi.OpCall, Imm: 12}, zero, exit)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := kernel.Load(&kernel.Spec{Type: kernel.XDP, Insns: test.insns})
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer p.Close()
			funcs, err := p.Functions()
			if err != nil {
				t.Fatal(err)
			}
			equal, err := Compare(k, funcs)
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d functions, %d bytes equal", len(funcs), equal)
		})
	}
}
