//go:build amd64 && !purego

package bpf

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/generated"
)

// offset is where a field of a struct lies.
func offset[S any](t *testing.T, field string) uintptr {
	f, ok := reflect.TypeFor[S]().FieldByName(field)
	if !ok {
		t.Fatalf("no field %s", field)
	}
	return f.Offset
}

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	want := map[string]uintptr{
		"ahead":      1024,
		"blockJumps": offset[block](t, "jumps"), "blockPoints": offset[block](t, "points"), "blockExits": offset[block](t, "exits"),
		"blockBack": offset[block](t, "back"), "blockSeconds": offset[block](t, "seconds"),
		"blockOthers": offset[block](t, "others"), "blockSuspects": offset[block](t, "suspects"),
		"blockLeast": offset[block](t, "least"), "blockMost": offset[block](t, "most"),
		"blockSize": reflect.TypeFor[block]().Size(),

		"placesOps": offset[places](t, "ops"), "placesSource": offset[places](t, "source"),
		"refusalConstants": offset[refusal](t, "constants"), "refusalRegisters": offset[refusal](t, "registers"),
		"refusalKnown": offset[refusal](t, "known"), "refusalLast": offset[refusal](t, "last"),
		"nibblesHigh": offset[nibbles](t, "high"), "nibblesLow": offset[nibbles](t, "low"),

		"surveyProgram": offset[Survey](t, "program"), "surveySlots": offset[Survey](t, "slots"),
		"surveyBlocks": offset[Survey](t, "blocks"), "surveyCharger": offset[Survey](t, "charger"),
		"programInsns": offset[Program](t, "Insns"),

		"chargeMarks":   offset[charger](t, "marks"),
		"chargeLengths": offset[charger](t, "lengths"), "chargeCharges": offset[charger](t, "charges"),
		"chargeBase": offset[charger](t, "base"), "chargeStop": offset[charger](t, "stop"),
		"chargeAt": offset[charger](t, "at"), "chargeLength": offset[charger](t, "length"), "chargeLeft": offset[charger](t, "left"),
		"flowGoesOn": offset[flow](t, "goesOn"), "flowLeads": offset[flow](t, "leads"), "flowCounts": offset[flow](t, "counts"),
		"patchIndex": offset[patcher](t, "mover") + offset[mover](t, "entries") + offset[entries](t, "index"), "patchMoved": offset[patcher](t, "moved"), "patchRoom": offset[patcher](t, "room"),
		"patchFlags": offset[patcher](t, "flags"),
		"patchSlot":  offset[patcher](t, "slot"), "patchAt": offset[patcher](t, "at"), "patchNext": offset[patcher](t, "next"),
		"patchBlock": offset[patcher](t, "block"), "patchStop": offset[patcher](t, "stop"), "patchKnown": offset[patcher](t, "known"),
		"patchPatches": offset[patcher](t, "patches"), "patchCount": offset[patcher](t, "patches") + 8, "patchPatch": offset[patcher](t, "patch"),
		"patchCharges": offset[patcher](t, "charges"), "patchCharge": offset[patcher](t, "charge"),
		"patchBegun": offset[patcher](t, "begun"), "patchFirst": offset[patcher](t, "first"),
		"aChargeSlot": offset[Charge](t, "Slot"), "aChargeN": offset[Charge](t, "N"), "aChargeSize": reflect.TypeFor[Charge]().Size(), "opCharge": abi.OpCharge, "anyway": anyway, "insnImm": offset[Insn](t, "Imm"),
		"aPatchSlot": offset[Patch](t, "Slot"), "aPatchOwn": offset[Patch](t, "Own"), "aPatchInsns": offset[Patch](t, "Insns"),
		"aPatchCount": offset[Patch](t, "Insns") + 8, "aPatchSize": reflect.TypeFor[Patch]().Size(), "inserted": uintptr(Inserted), "reachOff": uintptr(reachOff),

		"insnOff": offset[Insn](t, "Off"),

		"jumpBits": jumpBits & -jumpBits, "noImm": noImm, "noOff": noOff, "noSrc": noSrc,
		"noDst": noDst, "dstWritten": dstWritten, "frame": frame, "frameSrc": frameSrc, "widths": widths, "swapping": swapping,
		"opExit": abi.OpExit, "opLdImm64": abi.OpLdImm64, "r10": abi.R10, "frameSpan": frameSpan,
	}
	got, err := generated.Constants("../gen/asm/bpf/bpf_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	if offset[Insn](t, "Regs") != 1 || offset[Insn](t, "Off") != 2 || offset[Insn](t, "Imm") != 4 || opSecond != 0 {
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
	insns := make([]Insn, (chunk+3)*blockSlots)
	for round := range 600 {
		for i := range insns {
			insns[i] = testInsn(r)
		}
		n := 1 + r.IntN(len(insns))
		if round%2 == 0 {
			n = 1 + round/2 // all short ones
		}
		p := &Program{Insns: insns[len(insns)-n:]}
		for d := range Dialect(2) {
			for _, suspect := range []*refusal{nil, &refusals[d]} {
				survey := func(classify func(s *Survey, next, stop int, r *refusal)) []block {
					var s Survey
					s.begin(p)
					for next := 0; next < len(s.blocks); {
						stop := min(next+1+r.IntN(chunk), len(s.blocks))
						classify(&s, next, stop, suspect)
						next = stop
					}
					return s.blocks
				}
				want, got := survey((*Survey).classifyGeneric), survey((*Survey).classify)
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{})); diff != "" {
					t.Fatalf("%d slots, %v (-go +assembly):\n%s", n, d, diff)
				}
			}
		}
	}
}

// Twin calls f without assembly.
func Twin(f func()) {
	defer func(was bool) { assembly = was }(assembly)
	assembly = false
	f()
}
