//go:build amd64 && !purego

package blind

import (
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		j  blockJob
		c  choiceTable
		l  lists
		in bpf.Insn
		r  rule
	)
	want := map[string]uintptr{
		"jobInsns": unsafe.Offsetof(j.insns), "jobFlags": unsafe.Offsetof(j.flags), "jobOrigin": unsafe.Offsetof(j.origin),
		"jobIndex": unsafe.Offsetof(j.index), "jobOut": unsafe.Offsetof(j.out), "jobNewFlags": unsafe.Offsetof(j.newFlags),
		"jobNewOrigin": unsafe.Offsetof(j.newOrigin), "jobChoices": unsafe.Offsetof(j.choices), "jobLists": unsafe.Offsetof(j.lists),
		"jobCount": unsafe.Offsetof(j.count), "jobFrom": unsafe.Offsetof(j.from), "jobHidden": unsafe.Offsetof(j.hidden),
		"jobOther": unsafe.Offsetof(j.other), "jobNumbers": unsafe.Offsetof(j.numbers), "jobRules": unsafe.Offsetof(j.rules),
		"jobReserved": unsafe.Offsetof(j.reserved),

		"ruleMov": unsafe.Offsetof(r.mov), "ruleXor": unsafe.Offsetof(r.xor), "ruleOwn": unsafe.Offsetof(r.own),
		"ruleReserved": unsafe.Offsetof(r.reserved), "ruleOp": unsafe.Offsetof(r.op), "ruleShift": 4,

		"choiceRule": unsafe.Offsetof(c.rule), "choiceRow": unsafe.Offsetof(c.row), "choiceUsable": unsafe.Offsetof(c.usable),
		"choiceOther": unsafe.Offsetof(c.other), "choiceBack": unsafe.Offsetof(c.back), "choiceHides": unsafe.Offsetof(c.hides),
		"choiceSlots": unsafe.Offsetof(c.slots),

		"listRules": unsafe.Offsetof(l.rules), "listHidden": unsafe.Offsetof(l.hidden), "listOther": unsafe.Offsetof(l.other),
		"insnRegs": unsafe.Offsetof(in.Regs), "insnImm": unsafe.Offsetof(in.Imm),
		"insnOff": unsafe.Offsetof(in.Off), "zeroKey": zeroKey, "inserted": uintptr(bpf.Inserted), "ax": abi.AX,
	}
	got, err := generated.Constants("../gen/asm/blind/blind_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	if unsafe.Sizeof(in) != 8 || unsafe.Sizeof(bpf.Inserted) != 1 || unsafe.Sizeof(r) != 16 {
		t.Error("slots aren't 8 bytes, flags 1, or rules 16")
	}
}

// TestImplementations compares the assembly with its Go twin, on blocks of all
// lengths of slots of any kind.
func TestImplementations(t *testing.T) {
	seed := testprog.Seed(t)
	for n := range uint64(2 * block) {
		r := testprog.Rand(seed, n)
		count := 1 + int(n)%block
		insns, flags, origin := make([]bpf.Insn, count), make([]bpf.Flag, count), make([]int32, count)
		for i := range insns {
			insns[i] = bpf.Insn{Op: uint8(r.Uint32()), Regs: uint8(r.Uint32()), Off: int16(r.Uint32()), Imm: int32(r.Uint32()) * int32(r.IntN(2))}
			if r.IntN(2) == 0 {
				insns[i].Regs &= 7
			}
			if insns[i].Op == 0 && i == 0 {
				insns[i].Op = 7 // no half of a constant begins a block
			}
			flags[i], origin[i] = bpf.Flag(r.IntN(4)), int32(r.Uint32())
		}
		type result struct {
			Lists         lists
			Hidden, Other []uint8
			Index         []int32
			Out           []bpf.Insn
			Flags         []bpf.Flag
			Origin        []int32
			Reserved      int16
		}
		var numbers [block]uint32
		for i := range numbers {
			numbers[i] = r.Uint32()
		}
		run := func(layOut func(w *walk, index []int32) (hidden, other []uint8), hide func(*walk, []bpf.Insn, []uint8, []uint32, []int32) int16) result {
			room := 5 + upperLen*count
			w := &walk{choices: &choices, out: make([]bpf.Insn, room), flags: make([]bpf.Flag, room), origin: make([]int32, room)}
			index := make([]int32, count+1)
			index[0] = 5
			hidden, other := layOut(w, index)
			reserved := hide(w, insns, hidden, numbers[:len(hidden)], index)
			w.hidden, w.other = [block]uint8{}, [block]uint8{} // behind the ends there is anything
			return result{w.lists, hidden, other, index, w.out, w.flags, w.origin, reserved}
		}
		want := run(func(w *walk, index []int32) ([]uint8, []uint8) {
			h, o := w.layOutGeneric(insns, flags, index)
			h, o = append([]uint8{}, h...), append([]uint8{}, o...)
			w.copyGeneric(insns, flags, origin, 7, index)
			return h, o
		}, (*walk).hideGeneric)
		got := run(func(w *walk, index []int32) ([]uint8, []uint8) {
			h, o := w.layOut(insns, flags, origin, 7, index)
			return append([]uint8{}, h...), append([]uint8{}, o...)
		}, (*walk).hide)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(lists{})); diff != "" {
			t.Fatalf("%d slots (-go +assembly):\n%s", count, diff)
		}
	}
}
