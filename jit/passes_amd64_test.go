//go:build amd64 && !purego

package jit

import (
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/internal/mixed"
	"github.com/bpfjit/bpfjit/tables"
)

// implementations are those of the passes; TestImplementations runs over all.
var implementations = []implementation{
	{"asm", (*compiler).layOutJumps, (*compiler).pass, (*compiler).writeJumps, (*compiler).shortPasses},
	{"go", (*compiler).layOutGeneric, (*compiler).passGeneric, (*compiler).lastPassGeneric, (*compiler).passesGeneric},
}

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		p passJob
		j jump
		m encoder.Mark
		r tables.Row
		i abi.Insn

		ch charge
	)
	want := map[string]uintptr{
		"page":     4096,
		"jobMarks": unsafe.Offsetof(p.marks), "jobRows": unsafe.Offsetof(p.rows), "jobInsns": unsafe.Offsetof(p.insns),
		"jobEnds": unsafe.Offsetof(p.ends), "jobRanks": unsafe.Offsetof(p.ranks), "jobJumps": unsafe.Offsetof(p.jumps),
		"jobSums": unsafe.Offsetof(p.sums), "jobGaps": unsafe.Offsetof(p.gaps), "jobNext": unsafe.Offsetof(p.next),
		"jobCount": unsafe.Offsetof(p.count), "jobSlots": unsafe.Offsetof(p.slots), "jobStart": unsafe.Offsetof(p.start),
		"jobReach": unsafe.Offsetof(p.reach), "jobFirstRank": unsafe.Offsetof(p.firstRank), "jobSum": unsafe.Offsetof(p.sum),
		"jobShaped": unsafe.Offsetof(p.shaped), "jobExit": unsafe.Offsetof(p.exit), "jobExits": unsafe.Offsetof(p.exits),
		"jobFirstExit": unsafe.Offsetof(p.firstExit), "jobExitOp": unsafe.Offsetof(p.exitOp), "jobStop": unsafe.Offsetof(p.stop), "jobCharges": unsafe.Offsetof(p.charges),
		"jobCharged": unsafe.Offsetof(p.charged), "jobLengths": unsafe.Offsetof(p.lengths), "jobMost": unsafe.Offsetof(p.most),
		"jobRounds": unsafe.Offsetof(p.rounds),
		"jobOthers": unsafe.Offsetof(p.others), "jobNoted": unsafe.Offsetof(p.noted),

		"chargeMark": unsafe.Offsetof(ch.mark), "chargeN": unsafe.Offsetof(ch.n), "chargeSize": unsafe.Sizeof(ch),

		"jumpDist": unsafe.Offsetof(j.dist), "jumpRank": unsafe.Offsetof(j.rank), "jumpVanish": unsafe.Offsetof(j.vanish),
		"jumpSize": unsafe.Offsetof(j.size), "jumpOp": unsafe.Offsetof(j.op), "jumpShift": 4,

		"markSlot": unsafe.Offsetof(m.Slot), "markRow": 4,
		"gapLen":  48,
		"rowKind": unsafe.Offsetof(r.Kind), "rowShort": unsafe.Offsetof(r.Short),
		"insnOp": unsafe.Offsetof(i.Op), "insnRegs": unsafe.Offsetof(i.Regs), "insnOff": unsafe.Offsetof(i.Off), "insnImm": unsafe.Offsetof(i.Imm),

		"kindJcc": uintptr(tables.Jcc), "kindCharge": uintptr(tables.Charge),
		"shapeSize": 0, "shapeVanish": 4, "shapeJumps": 8, "shapeAway": 12, "shapeNoted": 16, "shapeShift": 5,
		"opExit": abi.OpExit, "partMarks": partMarks, "layOutMarks": layOutMarks, "group": group,
		"callSize": callSize, "callOp": opCall, "farAway": far, "isPlain": isPlain, "plainShift": plainShift, "markShift": 3, "estimateShift": 6,
		"shortJump": encoder.ShortJump, "longJa": encoder.LongJa, "longJcc": encoder.LongJcc, "shortBack": -shortBack,
	}
	got, err := generated.Constants("../gen/asm/passes/passes_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	for _, pair := range [][2]uintptr{
		{unsafe.Sizeof(j), 1 << 4}, {unsafe.Sizeof(encoder.Gap(0)), 1 << 3}, {unsafe.Sizeof(m), 1 << 3}, {encoder.MarkSize, 1 << 3},
		{unsafe.Sizeof(r), tables.RowSize}, {unsafe.Sizeof(i), abi.InsnSize}, {estimate, 1 << 6},
		{uintptr(tables.Ja), uintptr(tables.Jcc) + 1}, {uintptr(tables.Call), uintptr(tables.Jcc) + 2}, {encoder.LongJcc, encoder.LongJa + 1},
	} {
		if pair[0] != pair[1] {
			t.Errorf("offsets or sizes differ: %d", pair)
		}
	}
}

// TestParts: with more marks than a call takes the assembly does what the Go twin
// does.
func TestParts(t *testing.T) {
	p := &bpf.Program{Insns: mixed.Real().Program(1, 100_000)}
	want := implementations[1].run(t, p, &Linux618, &Function{StackDepth: 8})
	got := implementations[0].run(t, p, &Linux618, &Function{StackDepth: 8})
	if len(got.Jumps) < 2*partMarks {
		t.Errorf("%d marks", len(got.Jumps))
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(jump{}, charge{})); diff != "" {
		t.Errorf("-go +asm:\n%s", diff)
	}
}

// TestLayOutParts: a call lays out no more marks than it has a few microseconds for.
func TestLayOutParts(t *testing.T) {
	calls := make([]abi.Insn, 3*layOutMarks)
	for i := range calls {
		calls[i] = abi.Insn{Op: abi.OpCall, Imm: 5}
	}
	c := &compiler{profile: &Linux618, prog: &bpf.Program{Insns: calls}, fn: new(Function), insns: calls}
	if err := c.draftAll(ahead); err != nil {
		t.Fatal(err)
	}
	c.begin()
	for want := layOutMarks; want < len(calls); want += layOutMarks {
		if more := layOutAVO(&c.job); !more || c.job.next != want {
			t.Fatalf("laid out up to mark %d, want %d; there are more: %v", c.job.next, want, more)
		}
	}
}

// TestRequiresNothing: what runs on every processor requires nothing that some lack.
func TestRequiresNothing(t *testing.T) {
	always := func() bool { return true }
	if list, err := generated.NotAskedFor("passes_amd64.s", always, "layOutAVO", "passAVO"); err != nil || list != nil {
		t.Errorf("%v, error %v", list, err)
	}
	if list, _ := generated.NotAskedFor("passes_amd64.s", always, "passesAVO"); list == nil {
		t.Error("passesAVO requires nothing, either")
	}
}
