//go:build amd64 && !purego

package encoder

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// TestJoinLong: a call joins so many slots and marks at most, however they lie, and
// all calls do what one would.
func TestJoinLong(t *testing.T) {
	if !assembly {
		t.Skip("the processor has no AVX2")
	}
	const long, far = 4*joinSlots + 77, farSlots + 77
	for _, test := range []struct {
		name  string
		slots int
		mark  func(slot int) bool
	}{
		{"none", long, func(int) bool { return false }},
		{"last", long, func(slot int) bool { return slot == long-1 }},
		{"few", long, func(slot int) bool { return slot%1000 == 7 }},
		{"border", long, func(slot int) bool { return slot%joinSlots == 0 }},
		{"border before", long, func(slot int) bool { return slot%joinSlots == joinSlots-1 }},
		{"together", long, func(slot int) bool { return slot/1500 == 6 }},
		{"all", long, func(int) bool { return true }},
		{"far few", far, func(slot int) bool { return slot%1000 == 7 }},
		{"far many", far, func(slot int) bool { return slot*slot%7 == 2 }},
		{"far together", far, func(slot int) bool { return slot/15000 == 6 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			slots := test.slots
			prog := make([]abi.Insn, slots)
			for i := range prog {
				prog[i] = abi.Insn{Op: 0x07, Regs: uint8(i % 10), Imm: int32(i)}
				if test.mark(i) {
					prog[i] = abi.Insn{Op: abi.OpJa}
				}
			}
			var d Draft
			if !d.Write(tables.Kernel, prog, false) {
				t.Fatal("refused")
			}
			size, gaps := d.Len(), make([]Gap, len(d.Marks), len(d.Marks)+1)
			for k := range gaps {
				gaps[k] = MakeGap(uint64(k), uint32(k%6))
				size += k % 6
			}
			join := func(all func(*Joint)) (code []byte, ends []uint32) {
				code, ends = make([]byte, size+Slack), make([]uint32, slots+EndsSlack)
				j := Joint{Draft: &d, Code: code, Gaps: gaps, Ends: ends}
				j.Begin()
				all(&j)
				return code[:j.At], ends[:slots]
			}
			wantCode, wantEnds := join(func(j *Joint) {
				j.Marks, j.At, j.slot = 0, 0, 0 // what Begin joined, too
				clear(j.Code)
				clear(j.Ends)
				j.extendGeneric(len(j.Gaps))
			})
			marks, was := slices.Clone(d.Marks), slices.Clone(gaps)
			code, ends := join(func(j *Joint) {
				if j.slot > joinSlots || j.Marks > JoinPart || j.slot == 0 {
					t.Fatalf("began up to slot %d and mark %d", j.slot, j.Marks)
				}
				for over := false; !over; {
					slot, mark := j.slot, j.Marks
					over = j.Extend()
					if j.slot-slot > joinSlots || j.Marks-mark > JoinPart || j.slot == slot {
						t.Fatalf("from slot %d and mark %d to %d and %d", slot, mark, j.slot, j.Marks)
					}
				}
			})
			if !bytes.Equal(code, wantCode) || !slices.Equal(ends, wantEnds) || len(code) != size {
				t.Error("the code differs")
			}
			if !slices.Equal(d.Marks, marks) || !slices.Equal(gaps, was) {
				t.Error("joining changed marks or gaps")
			}
		})
	}
}
