package bpf_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// FuzzCheck: no bytes make Check or the listing panic. Encode gives back what
// Decode read. Of a program that Check accepts as a source program,
//   - each instruction is a form of the dialect that doesn't write R10
//   - execution stays in the program, and can't pass the end of a function
//   - Functions and Charges work and agree with each other
//   - putting something in front of every instruction leaves it acceptable
func FuzzCheck(f *testing.F) {
	r := testprog.Rand(1, 0)
	for range 20 {
		f.Add(bpf.Encode(randomProgram(r, 10).Insns))
	}
	for _, text := range []string{"exit", "goto -1", "r1 = 1 ll\nexit", "call pc+1\nexit\nexit", "may_goto +0\nexit", "tail_call 1\ncall 7"} {
		f.Add(bpf.Encode(testprog.Parse(f, text).Insns))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		insns, err := bpf.Decode(code)
		if err != nil {
			return
		}
		if !bytes.Equal(bpf.Encode(insns), code) {
			t.Fatal("Encode doesn't give back what Decode read")
		}
		p := &bpf.Program{Insns: insns}
		p.List(io.Discard, bpf.ListOptions{Numbers: true, Bytes: true, Marks: true})
		for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
			err := bpf.Check(p, d)
			var e *bpf.Error
			if err != nil && (!errors.As(err, &e) || e.Slot >= len(insns) || e.Error() == "") {
				t.Fatalf("%v: error %#v", d, err)
			}
			if err == nil && d == bpf.Source {
				accepted(t, p)
			}
		}
	})
}

// accepted tests what Check promises about a source program.
func accepted(t *testing.T, p *bpf.Program) {
	funcs, err := bpf.Functions(p)
	if err != nil {
		t.Fatal(err)
	}
	charges := bpf.Charges(p)
	var patches []bpf.Patch
	for _, f := range funcs {
		if charges[f.Start] <= 0 {
			t.Fatalf("the function at slot %d is not charged for", f.Start)
		}
		for slot := f.Start; slot < f.End; slot++ {
			insn := p.Insns[slot]
			form, ok := tables.FormOf(insn.Op, insn.Regs, insn.Off, insn.Imm)
			info := &tables.Forms[form]
			if !ok || info.Source != tables.Allowed {
				t.Fatalf("slot %d is %v", slot, form)
			}
			if info.Dst.Writes() && insn.Dst() >= abi.R10 || info.Src.Writes() && insn.Src() >= abi.R10 {
				t.Fatalf("slot %d writes R10 or AX", slot)
			}
			for _, s := range successors(p, slot) {
				if s < f.Start || s >= f.End || p.Insns[s].Op == 0 {
					t.Fatalf("slot %d goes on at slot %d", slot, s)
				}
				if s <= slot && charges[s] <= 0 {
					t.Fatalf("slot %d jumps back to slot %d, which is not charged for", slot, s)
				}
			}
			patches = append(patches, bpf.Patch{Slot: slot, Own: bpf.Before, Insns: []bpf.Insn{{Op: 0xb7}}})
			if insn.Op == abi.OpLdImm64 {
				slot++
			}
		}
	}
	np, _, err := bpf.Apply(p, patches)
	if errors.Is(err, bpf.ErrRange) || err == nil && len(np.Insns) > bpf.MaxSlots {
		return
	}
	if err == nil {
		err = bpf.Check(np, bpf.Source)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzParse: no text makes Parse panic, and what it reads, it reads again
// from the listing.
func FuzzParse(f *testing.F) {
	f.Add("0: r1 = 0x1 ll\n2: if w1 s< -4 goto -1 <2> ; x\n*(u8 *)(r1 - 4) = 3")
	f.Add("w1 = cmpxchg_32(r10 - 8, w0, w1)\nr0 = *(u8 *)skb[r1 + -4]")
	f.Fuzz(func(t *testing.T, text string) {
		insns, err := bpf.Parse(text)
		if err != nil {
			return
		}
		p := &bpf.Program{Insns: insns}
		var b bytes.Buffer
		p.List(&b, bpf.ListOptions{Numbers: true})
		again, err := bpf.Parse(b.String())
		if err != nil || !bytes.Equal(bpf.Encode(again), bpf.Encode(insns)) {
			t.Fatalf("%q reads as\n%s, %v", text, b.String(), err)
		}
	})
}
