package jit

import (
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// TestErrorsOfCheck: what isn't well-formed gets the error of bpf.Check, also behind
// what has no code.
func TestErrorsOfCheck(t *testing.T) {
	exit, noHelper := abi.Insn{Op: abi.OpExit}, abi.Insn{Op: abi.OpCall}
	away := abi.Insn{Op: abi.OpJa, Off: 9}
	for name, tt := range map[string]struct {
		p       bpf.Program
		profile *Profile
		fn      Function
	}{
		"no end":       {p: bpf.Program{Insns: []abi.Insn{noHelper, {Op: 0xb7}}}},
		"leads away":   {p: bpf.Program{Insns: []abi.Insn{noHelper, away, exit}}},
		"tail calls":   {p: bpf.Program{Insns: []abi.Insn{{Op: abi.OpCall, Imm: 1}, away, exit}}, profile: &Linux513, fn: Function{TailCallReachable: true}},
		"writes R10":   {p: bpf.Program{Insns: []abi.Insn{{Op: 0xb7, Regs: abi.R10}, exit}}, fn: Function{PrivateStack: 1 << 40}},
		"register 12":  {p: bpf.Program{Insns: []abi.Insn{{Op: 0xbf, Regs: 0xc0}, exit}}, fn: Function{PrivateStack: 1 << 40}},
		"few flags":    {p: bpf.Program{Insns: []abi.Insn{exit, exit}, Flags: make([]bpf.Flag, 1)}},
		"short index":  {p: bpf.Program{Insns: []abi.Insn{exit, exit}, Index: []int32{0, 1}}},
		"many origins": {p: bpf.Program{Insns: []abi.Insn{exit, exit}, Index: []int32{0, 2}, Origin: []int32{0, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.profile == nil {
				tt.profile = &Linux618
			}
			want := bpf.Check(&tt.p, bpf.Translated)
			_, err := Compile(&tt.p, tt.profile, &tt.fn)
			if want == nil || err == nil || err.Error() != want.Error() {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

// TestNoCode: what is well-formed and has no code all the same.
func TestNoCode(t *testing.T) {
	exit := abi.Insn{Op: abi.OpExit}
	for want, in := range map[string]abi.Insn{
		"slot 0 (call 0): imm is 0: no helper and no kernel function":                       {Op: abi.OpCall},
		"slot 0 (call kfunc 0): imm is 0: no helper and no kernel function":                 {Op: abi.OpCall, Regs: abi.Registers(0, abi.CallKfunc)},
		"slot 0 (r11 = *(u64 *)(r1 + 0) probe): dst is a register that a fault can't clear": {Op: 0x39, Regs: abi.Registers(abi.AX, 1)},
	} {
		_, err := Compile(&bpf.Program{Insns: []abi.Insn{in, exit}}, &Linux618, new(Function))
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// TestBlindedLong: a program that blinding has made longer than bpf.Check allows is
// compiled, and refused for what is wrong with it.
func TestBlindedLong(t *testing.T) {
	p := &bpf.Program{Insns: slices.Repeat([]abi.Insn{{Op: 0xbf}}, bpf.MaxSlots+10)}
	p.Insns[len(p.Insns)-1].Op = abi.OpExit
	for _, fn := range []*Function{{}, {PrivateStack: 1 << 40}} {
		if _, err := Compile(p, &Linux618, fn); err != nil {
			t.Error(err)
		}
	}
	p.Insns[5].Op = 0xff
	_, err := Compile(p, &Linux618, new(Function))
	if want := "slot 5 (op 0xff dst 0 src 0 off 0 imm 0): has no code in this profile"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	p.Insns[5] = abi.Insn{Op: abi.OpJa, Off: -9}
	if _, err = Compile(p, &Linux618, new(Function)); err == nil {
		t.Error("a jump to nowhere is compiled")
	}
}
