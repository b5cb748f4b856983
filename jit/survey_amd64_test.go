//go:build amd64 && !purego

package jit

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// surveyed is what a survey finds.
type surveyed struct {
	Insns     []abi.Insn
	Targets   []uint8
	Additions []uint64
}

// surveyBy runs an implementation, and if there is one, one of fuseConstants
// behind the survey.
func surveyBy(survey, fuse func(*compiler), insns []abi.Insn) surveyed {
	c := &compiler{insns: insns}
	c.prepareSurvey()
	n := len(insns)
	for i := range c.fusing.insns[n:] { // of a longer function before
		c.fusing.insns[n+i] = garbage[i%len(garbage)]
	}
	survey(c)
	if fuse != nil {
		fuse(c)
	}
	return surveyed{c.insns, c.fusing.targets[:n+1], c.fusing.additions}
}

// garbage is additions, some of which could belong to a move in front, and jumps.
var garbage = []abi.Insn{{Op: opAddX, Regs: 1}, {Op: opAddK, Regs: 1}, {Op: 0x05, Off: -20}, {Op: opMoveX, Regs: 7}, {Op: opAddK, Regs: 7}, {Op: abi.OpGotol, Imm: -50}, {Op: opAddK}}

func surveyASM(c *compiler) { c.fusing.surveyParts() }

func fuseConstantsASM(c *compiler) { c.fusing.fuseParts() }

// TestSurvey compares the assembly with surveyGeneric: on programs of all
// lengths up to 200, and some that take more than a call.
func TestSurvey(t *testing.T) {
	if !encoder.Vectors() {
		t.Skip("the processor has no AVX2")
	}
	lengths := []int{surveyWords*wordSlots - 1, surveyWords * wordSlots, surveyWords*wordSlots + 1, 3*surveyWords*wordSlots + 77}
	for n := range 201 {
		for range 20 {
			lengths = append(lengths, n)
		}
	}
	ops := cageOpcodes()
	seed := testprog.Seed(t)
	additions, again, targets := 0, 0, 0
	for i, n := range lengths {
		insns := surveyProgram(testprog.Rand(seed, uint64(i)), ops, n)
		want := surveyBy((*compiler).surveyGeneric, nil, insns)
		if d := cmp.Diff(want, surveyBy(surveyASM, nil, insns)); d != "" {
			t.Fatalf("%d slots, %v: Go and assembly differ (-go +asm):\n%s", n, insns, d)
		}
		fused := surveyBy((*compiler).surveyGeneric, (*compiler).fuseConstantsGeneric, insns)
		if d := cmp.Diff(fused, surveyBy((*compiler).surveyGeneric, fuseConstantsASM, insns)); d != "" {
			t.Fatalf("%d slots, %v: Go and assembly fuse other constants (-go +asm):\n%s", n, insns, d)
		}
		for w := range want.Additions {
			additions += int(min(want.Additions[w], 1))
		}
		for i := range insns {
			if insns[i] != want.Insns[i] {
				again++
			}
		}
		for _, m := range want.Targets {
			targets += int(m & 1)
		}
	}
	t.Logf("words with additions: %d, accesses again: %d, targets: %d", additions, again, targets)
	if min(additions, again, targets) < len(lengths)/4 {
		t.Error("too few of one kind")
	}
}

// cageOpcodes returns the opcodes that the cage has code for, but the second
// half of constants.
func cageOpcodes() (ops []uint8) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		in := abi.Insn{Op: form.Op, Regs: abi.Registers(uint8(form.Dst.Value), uint8(form.Src.Value)), Off: int16(form.Off.Value), Imm: form.Imm.Value}
		if encoder.RowOf(tables.Cage, in).Kind != tables.None && form.Op != 0 {
			ops = append(ops, form.Op)
		}
	}
	return ops
}

// surveyProgram returns random instructions, whose opcodes exist. Most are what
// a survey looks at, with few registers. Some jumps lead to nowhere.
func surveyProgram(r *rand.Rand, ops []uint8, n int) []abi.Insn {
	often := []uint8{opMoveX, opMoveX - narrow, opAddX, opAddK, opAddK - narrow, 0x61, 0x79, 0x91, 0x7b, 0x62}
	registers := []uint8{0, 1, 2, 7, 10, 11}
	insns := make([]abi.Insn, n)
	for i := range insns {
		in := abi.Insn{Op: ops[r.IntN(len(ops))]}
		if r.IntN(4) > 0 {
			in.Op = often[r.IntN(len(often))]
		}
		in.Regs = abi.Registers(registers[r.IntN(len(registers))], registers[r.IntN(len(registers))])
		in.Off = int16(r.IntN(n+2) - i - 1)
		switch r.IntN(10) {
		case 0:
			in.Off = int16(r.Uint32())
		case 1:
			in.Off = int16(r.IntN(20))
		}
		in.Imm = int32(in.Off)
		if r.IntN(20) == 0 {
			in.Imm = int32(r.Uint32())
		}
		switch in.Op & abi.ClassMask { // what is reserved in accesses, where marks are set
		case abi.ClassST:
			in.Regs &= 15
		case abi.ClassLDX, abi.ClassSTX:
			in.Imm = 0
		}
		insns[i] = in
	}
	for i := range insns {
		if insns[i].Op == abi.OpLdImm64 && i+1 < n {
			insns[i+1] = abi.Insn{Imm: int32(r.Uint32())}
		}
	}
	return insns
}

// TestSurveyOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestSurveyOffsets(t *testing.T) {
	var (
		j surveyJob
		i abi.Insn
	)
	want := map[string]uintptr{
		"jobInsns": unsafe.Offsetof(j.insns), "jobTargets": unsafe.Offsetof(j.targets),
		"jobAdditions": unsafe.Offsetof(j.additions),
		"jobSlots":     unsafe.Offsetof(j.slots), "jobNext": unsafe.Offsetof(j.next), "jobStop": unsafe.Offsetof(j.stop),
		"jobHeld": unsafe.Offsetof(j.held), "jobBase": unsafe.Offsetof(j.base), "jobMoves": unsafe.Offsetof(j.moves),
		"jobLooked": unsafe.Offsetof(j.looked), "jobJumps": unsafe.Offsetof(j.jumps), "jobAgain": unsafe.Offsetof(j.again),
		"lookedSize": unsafe.Sizeof(j.looked[0]),
		"insnOff":    unsafe.Offsetof(i.Off), "insnImm": unsafe.Offsetof(i.Imm),
		"insnRegs": unsafe.Offsetof(i.Regs),
		"opMoveX":  opMoveX, "opAddK": opAddK, "opLea": abi.OpLea,
		"opGotol": abi.OpGotol, "frame": abi.R10, "isTarget": isTarget, "noMove": noMove,
		"classST": abi.ClassST, "numClasses": abi.ClassMask + 1, "markSrc": markOf(abi.ClassST), "markImm": markOf(abi.ClassLDX),
		"numBits": 4, "wordShift": 6, "slotShift": 3,
	}
	got, err := generated.Constants("../gen/asm/survey/survey_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	for _, pair := range [][2]uintptr{
		{unsafe.Sizeof(i), 1 << 3}, {wordSlots, 1 << 6}, {unsafe.Offsetof(i.Op), 0},
	} {
		if pair[0] != pair[1] {
			t.Errorf("offsets or sizes differ: %d", pair)
		}
	}
}

// markOf returns which bit of a slot markAgain sets in a class.
func markOf(class uint8) uintptr {
	in := abi.Insn{Op: class}
	markAgain(&in)
	slot := binary.LittleEndian.Uint64(bpf.Encode([]abi.Insn{in}))
	return uintptr(bits.Len64(slot) - 1)
}
