//go:build amd64 && !purego

package encoder

import (
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/tables"
)

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		w writeJob
		d Draft
		j Joint
		i abi.Insn
		f finder
		l lookup
		s scratch
		q quickRow
		r tables.Row
		m Mark
	)
	want := map[string]uintptr{
		"writeInsns": unsafe.Offsetof(w.insns), "writeEnds": unsafe.Offsetof(w.ends), "writeRanks": unsafe.Offsetof(w.ranks),
		"writeMarks": unsafe.Offsetof(w.marks), "writeFinder": unsafe.Offsetof(w.finder), "writeLookup": unsafe.Offsetof(w.lookup),
		"writeSteps": unsafe.Offsetof(w.steps), "writeBits": unsafe.Offsetof(w.bits), "writeAt": unsafe.Offsetof(w.at),
		"writeScratch": unsafe.Offsetof(w.scratch), "writeRows": unsafe.Offsetof(w.rows),
		"writeNext": unsafe.Offsetof(w.next), "writeStop": unsafe.Offsetof(w.stop), "writeAll": unsafe.Offsetof(w.all), "writeClass": unsafe.Offsetof(w.class),

		"draftEnds": unsafe.Offsetof(d.Ends), "draftMarks": unsafe.Offsetof(d.Marks), "draftCode": unsafe.Offsetof(d.code),

		"joinMarks": unsafe.Offsetof(j.Marks), "joinDraft": unsafe.Offsetof(j.Draft), "joinCode": unsafe.Offsetof(j.Code),
		"joinGaps": unsafe.Offsetof(j.Gaps), "joinEnds": unsafe.Offsetof(j.Ends), "joinAt": unsafe.Offsetof(j.At),
		"joinSlot": unsafe.Offsetof(j.slot), "sliceLen": 8, "slack": Slack,
		"pieceBytes": pieceBytes, "pieceSlots": pieceSlots, "vector": 32, "ahead": 2048,

		"scratchFields": unsafe.Offsetof(s.fields), "scratchClass": unsafe.Offsetof(s.class), "scratchLast": unsafe.Offsetof(s.last),
		"quickHead": unsafe.Offsetof(q.head), "quickPlace": unsafe.Offsetof(q.place), "quickMask": unsafe.Offsetof(q.mask),
		"quickValue": unsafe.Offsetof(q.value), "quickLen": unsafe.Offsetof(q.length), "quickPair": unsafe.Offsetof(q.pair),
		"quickMark": unsafe.Offsetof(q.mark),

		"insnRegs": unsafe.Offsetof(i.Regs), "insnOff": unsafe.Offsetof(i.Off), "insnImm": unsafe.Offsetof(i.Imm),

		"finderMasks": unsafe.Offsetof(f.Masks), "finderBases": unsafe.Offsetof(f.Bases), "finderClass": unsafe.Offsetof(f.class),
		"lookupIndex": unsafe.Offsetof(l.index), "lookupPairs": unsafe.Offsetof(l.pairs),

		"stepHead": unsafe.Offsetof(r.Head), "stepDst": unsafe.Offsetof(r.Dst), "stepSrc": unsafe.Offsetof(r.Src),
		"stepDisp": unsafe.Offsetof(r.Disp), "stepImm": unsafe.Offsetof(r.Imm), "stepLen": unsafe.Offsetof(r.Len),
		"stepSize": unsafe.Sizeof(r.Step),

		"rowMask": unsafe.Offsetof(r.Mask), "rowValue": unsafe.Offsetof(r.Value), "rowRefuse": unsafe.Offsetof(r.Refuse),
		"rowFirst": unsafe.Offsetof(r.First),
		"rowMore":  unsafe.Offsetof(r.More),

		"markSlot": unsafe.Offsetof(m.Slot), "markRow": unsafe.Offsetof(m.row), "markSize": MarkSize,
		"gapLen": gapLen, "page": 4096,

		"classBits": tables.ClassBits, "firstProperty": tables.ClassImm8, "opLdImm64": abi.OpLdImm64, "opJa": abi.OpJa, "batch": batch,
	}
	for _, pair := range [][2]uintptr{
		{unsafe.Sizeof(w), 15 * 8}, {unsafe.Sizeof(j), 13 * 8}, // as the stubs have them
		{unsafe.Offsetof(r.Step), 0}, {unsafe.Sizeof(i), abi.InsnSize}, {unsafe.Sizeof(r), tables.RowSize},
		{unsafe.Sizeof(q), tables.RowSize},
		{unsafe.Sizeof(m), MarkSize}, {unsafe.Sizeof(Gap(0)), 8},
		{tables.ClassImm8 << 7, tables.ClassOffZero}, // what vectors find
	} {
		if pair[0] != pair[1] {
			t.Errorf("offsets or sizes differ: %d", pair)
		}
	}
	if len(tables.RowIndex) > len(l.index) || tables.NumRows > len(l.rows) {
		t.Errorf("%d rows and an index of %d are too many", tables.NumRows, len(tables.RowIndex))
	}
	got, err := generated.Constants("../gen/asm/encoder/encoder_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
}
