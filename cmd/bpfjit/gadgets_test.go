package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestGadgets: of programs full of constants that are rare, all are in plain
// code, where they are entered at will, and none in blinded code.
func TestGadgets(t *testing.T) {
	rand := testprog.Rand(testprog.Seed(t), 0)
	profiles := []string{"kernel"}
	if haveJIT() {
		profiles = append(profiles, "cage")
	}
	for range 20 {
		var insns []bpf.Insn
		constants := 0
		// Never of 8 bits, nor what a row of opcodes looks like: none is 0x91
		// to 0x9f.
		imm := func() int32 { return int32(rand.Uint32()&^0x6000 | 0x01019180) }
		for len(insns) < 200 {
			switch constants++; rand.IntN(5) {
			case 0:
				insns = append(insns, bpf.Insn{Op: 0xb4, Imm: imm()}) // w0 = imm
			case 1:
				insns = append(insns, bpf.Insn{Op: 0xa7, Imm: imm()}) // r0 ^= imm
			case 2:
				insns = append(insns, bpf.Insn{Op: 0x62, Regs: 10, Off: -8, Imm: imm()}) // *(u32 *)(r10 - 8) = imm
			case 3:
				insns = append(insns, bpf.Insn{Op: 0x55, Imm: imm()}) // if r0 != imm goto +0
			case 4:
				insns = append(insns, bpf.Insn{Op: 0x18, Regs: 1, Imm: imm()}, bpf.Insn{Imm: imm()}) // r1 = imm ll
			}
		}
		insns = append(insns, bpf.Insn{Op: 0x95})
		for _, profile := range profiles {
			var out, errs bytes.Buffer
			args := []string{"dump", "-gadgets", "-json", "-profile", profile, "-code", hex.EncodeToString(bpf.Encode(insns))}
			if exit := run(nil, &out, &errs, args); exit != exitOK {
				t.Fatalf("%v: exit %d: %s", args, exit, &errs)
			}
			var g gadgetDump
			if err := json.Unmarshal(out.Bytes(), &g); err != nil {
				t.Fatal(err)
			}
			if len(g.Constants) != constants || g.Plain != constants || g.Blinded != 0 {
				t.Errorf("%s: %d constants of %d, %d in plain code, %d in blinded code", profile, len(g.Constants), constants, g.Plain, g.Blinded)
			}
			for _, c := range g.Constants {
				checkBytes(t, c, insns[c.Slot].Imm)
			}
		}
	}
}

// checkBytes looks for a constant itself.
func checkBytes(t *testing.T, c *gadgetConstant, imm int32) {
	t.Helper()
	value := binary.LittleEndian.AppendUint32(nil, uint32(imm))
	for _, code := range []*gadgetCode{c.Plain, c.Blinded} {
		b, err := hex.DecodeString(code.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if found := bytes.Contains(b, value); found != (code == c.Plain) || len(code.From) != 4 {
			t.Errorf("slot %d, %s: %#x in %x: %v; %d ways in", c.Slot, c.Insn, imm, b, found, len(code.From))
		}
	}
}
