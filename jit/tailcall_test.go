package jit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// TestTailCallEntry: a tail call enters the next program behind its "mov rbp,
// rsp", and its endbr64 if it has one there. Calls of functions load the
// counter before, others don't.
func TestTailCallEntry(t *testing.T) {
	ibt := Linux618
	ibt.IBT = true
	p := &bpf.Program{Insns: []abi.Insn{
		{Op: abi.OpCall, Imm: 5},
		{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal), Imm: 1},
		{Op: abi.OpTailCall},
		{Op: abi.OpExit},
	}}
	for entry, profile := range map[int]*Profile{12: &Linux618, 16: &ibt} {
		fn := &Function{StackDepth: 20, TailCallReachable: true}
		code, err := Compile(p, profile, fn)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(code.Bytes, []byte{0x48, 0x83, 0xc1, byte(entry)}) { // add rcx, entry
			t.Errorf("no entry %d bytes into a program", entry)
		}
		checkEntry(t, code, entry)
		load := binary.LittleEndian.AppendUint32([]byte{0x48, 0x8b, 0x85}, uint32(fn.slot())) // mov rax, [rbp+slot]
		for slot, want := range []bool{false, true} {
			from := []uint32{code.Funcs[0].Body, code.Ends[0]}[slot]
			if got := bytes.HasPrefix(code.Bytes[from:], load); got != want {
				t.Errorf("slot %d loads the counter: %v", slot, got)
			}
		}
	}
}

func checkEntry(t *testing.T, code *Code, entry int) {
	t.Helper()
	before := bytes.TrimSuffix(code.Bytes[:entry], endbr64)
	if !bytes.HasSuffix(before, []byte{0x55, 0x48, 0x89, 0xe5}) { // push rbp; mov rbp, rsp
		t.Errorf("the entry is behind % x", before)
	}
}

// TestOldTailCalls: the profile of 5.13 has the prologue, 11 bytes to the
// entry and 8 for the counter, and refuses the rest.
func TestOldTailCalls(t *testing.T) {
	exit := abi.Insn{Op: abi.OpExit}
	for _, sub := range []bool{false, true} {
		code, err := Compile(&bpf.Program{Insns: []abi.Insn{exit}}, &Linux513, &Function{TailCallReachable: true, Subprogram: sub})
		if err != nil {
			t.Fatal(err)
		}
		checkEntry(t, code, 11)
		clear := []byte{0x31, 0xc0} // xor eax, eax
		if sub {
			clear = []byte{0x66, 0x90} // nop
		}
		if !bytes.Equal(code.Bytes[5:7], clear) || !bytes.Equal(code.Bytes[11:], []byte{0x50, 0xc9, 0xc3}) { // push rax; leave; ret
			t.Errorf("subprogram %v: % x", sub, code.Bytes)
		}
	}
	for _, in := range []abi.Insn{{Op: abi.OpTailCall}, {Op: abi.OpCall, Imm: 5}} {
		_, err := Compile(&bpf.Program{Insns: []abi.Insn{in, exit}}, &Linux513, &Function{TailCallReachable: true})
		var be *bpf.Error
		if !errors.Is(err, bpf.ErrUnsupported) || !errors.As(err, &be) || be.Slot != 0 {
			t.Errorf("%s: %v", bpf.Text(in), err)
		}
	}
}
