//go:build amd64 && !purego

package bpf

import (
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/generated"
)

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		b block
		p places
		r refusal
		n nibbles
		i Insn
	)
	want := map[string]uintptr{
		"blockJumps": unsafe.Offsetof(b.jumps), "blockBack": unsafe.Offsetof(b.back), "blockExits": unsafe.Offsetof(b.exits),
		"blockFirsts": unsafe.Offsetof(b.firsts), "blockSeconds": unsafe.Offsetof(b.seconds),
		"blockOthers": unsafe.Offsetof(b.others), "blockSuspects": unsafe.Offsetof(b.suspects), "blockSize": unsafe.Sizeof(b),

		"placesJumps": unsafe.Offsetof(p.jumps), "placesOthers": unsafe.Offsetof(p.others), "placesSource": unsafe.Offsetof(p.source),
		"refusalConstants": unsafe.Offsetof(r.constants), "refusalRegisters": unsafe.Offsetof(r.registers),
		"refusalKnown": unsafe.Offsetof(r.known), "refusalLast": unsafe.Offsetof(r.last),
		"nibblesHigh": unsafe.Offsetof(n.high), "nibblesLow": unsafe.Offsetof(n.low),

		"noImm": noImm, "noOff": noOff, "noSrc": noSrc,
		"noDst": noDst, "dstWritten": dstWritten, "frame": frame, "frameSrc": frameSrc,
		"opExit": abi.OpExit, "opLdImm64": abi.OpLdImm64, "r10": abi.R10, "frameBytes": abi.FrameBytes, "frameSpan": frameSpan,
	}
	got, err := generated.Constants("../gen/asm/bpf/bpf_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	if unsafe.Sizeof(i) != 8 || unsafe.Offsetof(i.Regs) != 1 || unsafe.Offsetof(i.Off) != 2 || unsafe.Offsetof(i.Imm) != 4 || opSecond != 0 {
		t.Error("slots aren't what they are on the wire")
	}
}

// TestImplementations compares the assembly with its Go twin on slots of any
// kind. Each field is often 0, or has one bit, or a number at which something
// changes.
func TestImplementations(t *testing.T) {
	if !assembly {
		t.Skip("the processor doesn't have what the assembly needs")
	}
	r := testRand(t)
	const count = classifyChunk + 3
	insns := make([]Insn, count*blockSlots)
	for range 300 {
		for i := range insns {
			insns[i] = testInsn(r)
		}
		for d := range Dialect(2) {
			for _, refusal := range []*refusal{nil, &refusals[d]} {
				var got, want [count]block
				classify(insns, got[:], refusal)
				classifyGeneric(insns, want[:], refusal)
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{})); diff != "" {
					t.Fatalf("%v (-go +assembly):\n%s", d, diff)
				}
			}
		}
	}
}
