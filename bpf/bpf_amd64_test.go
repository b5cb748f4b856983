//go:build amd64 && !purego

package bpf

import (
	"math/rand/v2"
	"reflect"
	"slices"
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

		"placesOps": offset[places](t, "ops"), "placesSource": offset[places](t, "source"), "placesKinds": offset[places](t, "kinds"),
		"refusalConstants": offset[refusal](t, "constants"), "refusalRegisters": offset[refusal](t, "registers"),
		"refusalKnown": offset[refusal](t, "known"), "refusalLast": offset[refusal](t, "last"),
		"nibblesHigh": offset[nibbles](t, "high"), "nibblesLow": offset[nibbles](t, "low"),

		"surveyProgram": offset[Survey](t, "program"), "surveySlots": offset[Survey](t, "slots"),
		"surveyBlocks": offset[Survey](t, "blocks"), "surveyLength": offset[Survey](t, "blocks") + 8,
		"surveyOthers": offset[Survey](t, "others"), "surveyListed": offset[Survey](t, "others") + 8,
		"surveyLooked": offset[Survey](t, "looked"), "surveyLanded": offset[Survey](t, "landed"),
		"surveyKinds": offset[Survey](t, "kinds"), "surveyAstray": offset[Survey](t, "astray"),
		"surveySuspects": offset[Survey](t, "suspects"), "surveyCharger": offset[Survey](t, "charger"),
		"anOtherInsn": offset[Other](t, "Insn"), "anOtherSize": reflect.TypeFor[Other]().Size(), "chunk": chunk, "lag": lag,
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
		"noDst": noDst, "dstWritten": dstWritten, "frame": frame, "frameSrc": frameSrc, "widths": widths,
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
	insns := make([]Insn, (lag+2*chunk+3)*blockSlots)
	for round := range 1000 {
		n := 1 + round%250 // all short ones
		switch round % 50 {
		case 7, 17, 27, 37:
			n = 1 + r.IntN((chunk+3)*blockSlots)
		case 47:
			n = len(insns) - r.IntN(len(insns)/2)
		}
		p := &Program{Insns: insns[len(insns)-n:]}
		for i := range p.Insns {
			p.Insns[i] = testInsn(r)
		}
		for round := range 3 {
			if round > 0 {
				lead(r, p, round-1)
			}
			for d := range Dialect(2) {
				for _, suspect := range []*refusal{nil, &refusals[d]} {
					want, got := partsOf(p, (*Survey).part, suspect), partsOf(p, assembled, suspect)
					if !reflect.DeepEqual(want, got) {
						diff := cmp.Diff(want, got, cmp.AllowUnexported(surveyState{}, block{}))
						t.Fatalf("%d slots, %v (-go +assembly):\n%s", n, d, diff)
					}
				}
			}
		}
	}
}

// lead has all jumps but a few lead to instructions.
func lead(r *rand.Rand, p *Program, astray int) {
	n := len(p.Insns)
	for i := range p.Insns {
		in := &p.Insns[i]
		if reaches[in.Op] != reachOff {
			continue
		}
		to := max(0, i-1<<15+1, min(i+1<<r.IntN(16)-1<<r.IntN(16), n-1, i+1<<15))
		for to > 0 && p.Insns[to].Op == opSecond {
			to--
		}
		if p.Insns[to].Op == opSecond {
			p.Insns[to].Op = abi.OpExit
		}
		in.Off = int16(to - i - 1)
	}
	for range astray {
		i := r.IntN(n)
		if r.IntN(2) == 0 {
			i = min(r.IntN(4), n-1)
		}
		if reaches[p.Insns[i].Op] == reachOff {
			p.Insns[i].Off = int16(r.Uint32()) >> r.IntN(15)
		}
	}
}

// surveyState is what there is of a survey when a part is done.
type surveyState struct {
	blocks           []block
	others           []Other
	looked, landed   int
	kinds            Kinds
	astray, suspects bool
}

func assembled(s *Survey, r *refusal) { s.assembled(r) }

// partsOf takes a survey by parts, in memory with something else in it.
func partsOf(p *Program, part func(s *Survey, r *refusal), r *refusal) (states []surveyState) {
	var s Survey
	s.begin(p)
	for k := range s.blocks {
		s.blocks[k] = block{^uint64(0), 1, 2, 3, 4, 5, 6, 7, 8}
	}
	for s.landed < len(s.blocks) {
		s.makeRoom(0)
		part(&s, r)
		blocks := slices.Clone(s.blocks[:s.looked])
		for k := range blocks {
			if s.astray { // it may have given up anywhere
				blocks[k].points = 0
			}
			if s.astray || k >= s.landed {
				blocks[k].least, blocks[k].most = 0, 0
			}
		}
		others := append([]Other{}, s.others...)
		states = append(states, surveyState{blocks, others, s.looked, s.landed, s.kinds, s.astray, s.suspects})
	}
	return states
}

// Twin calls f without assembly.
func Twin(f func()) {
	defer func(was bool) { assembly = was }(assembly)
	assembly = false
	f()
}
