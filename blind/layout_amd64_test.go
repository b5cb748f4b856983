//go:build amd64 && !purego

package blind

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		j  blockJob
		c  classTable
		l  lists
		in bpf.Insn
		r  rule
	)
	want := map[string]uintptr{
		"jobInsns": unsafe.Offsetof(j.insns), "jobFlags": unsafe.Offsetof(j.flags), "jobIndex": unsafe.Offsetof(j.index),
		"jobOut": unsafe.Offsetof(j.out), "jobClasses": unsafe.Offsetof(j.classes),
		"jobLists": unsafe.Offsetof(j.lists), "jobFirst": unsafe.Offsetof(j.first), "jobCount": unsafe.Offsetof(j.count),
		"jobHalf": unsafe.Offsetof(j.half), "jobNewFlags": unsafe.Offsetof(j.newFlags), "jobNumbers": unsafe.Offsetof(j.numbers),
		"jobRules": unsafe.Offsetof(j.rules), "jobReserved": unsafe.Offsetof(j.reserved),

		"classOpLow": unsafe.Offsetof(c.opLow), "classOpHigh": unsafe.Offsetof(c.opHigh),
		"classDst": unsafe.Offsetof(c.dst), "classSrc": unsafe.Offsetof(c.src),
		"hides": hides, "upperBit": 3, "leads": leads, "moveClass": move,

		"ruleMov": unsafe.Offsetof(r.mov), "ruleXor": unsafe.Offsetof(r.xor), "ruleOwn": unsafe.Offsetof(r.own),
		"ruleReserved": unsafe.Offsetof(r.reserved), "ruleShift": 4,

		"listHiding": unsafe.Offsetof(l.hiding), "listUpper": unsafe.Offsetof(l.upper), "listZero": unsafe.Offsetof(l.zero),
		"listLeads": unsafe.Offsetof(l.leads), "listHidden": unsafe.Offsetof(l.hidden), "listNumHidden": unsafe.Offsetof(l.numHidden),
		"page": 4096, "inserted": uintptr(bpf.Inserted), "unit": unit, "group": group,
	}
	got, err := generated.Constants("../gen/asm/blind/blind_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
	if unsafe.Sizeof(in) != 8 || unsafe.Offsetof(in.Imm) != 4 || unsafe.Sizeof(bpf.Inserted) != 1 || unsafe.Sizeof(r) != 16 || upperHalf != 1<<3 {
		t.Error("slots aren't 8 bytes with imm behind, flags 1, or rules 16, or upperHalf isn't bit 3")
	}
}

// TestImplementations compares the assembly with its Go twin, on blocks of all
// lengths of slots of any kind.
func TestImplementations(t *testing.T) {
	if !assembly {
		t.Skip("the processor has no BMI2 or AVX2: the Go twin is what runs")
	}
	seed := testprog.Seed(t)
	for n := range uint64(4 * block) {
		r := testprog.Rand(seed, n)
		count := 1 + int(n)%block
		p := &bpf.Program{Insns: make([]bpf.Insn, count), Flags: make([]bpf.Flag, count)}
		for i := range p.Insns {
			p.Insns[i] = bpf.Insn{Op: uint8(r.Uint32()), Regs: uint8(r.Uint32()), Off: int16(r.Uint32()), Imm: int32(r.Uint32()) * int32(r.IntN(2))}
			if r.IntN(2) == 0 {
				p.Insns[i].Regs &= 7
			}
			p.Flags[i] = bpf.Flag(r.IntN(4))
		}
		type results struct {
			Lists    lists
			Half     uint32
			Index    []int32
			Out      []bpf.Insn
			Flags    []bpf.Flag
			Reserved uint32
		}
		var numbers [block * numberBytes]byte
		for i := range numbers {
			numbers[i] = byte(r.Uint32())
		}
		half := uint32(r.IntN(2))
		run := func(generic bool) results {
			const at = 5
			room := at + upperLen*count + group
			w := &walk{half: half}
			w.out, w.flags = make([]bpf.Insn, room), make([]bpf.Flag, room)
			for i := range w.last.insns {
				w.last.insns[i], w.last.flags[i] = bpf.Insn{Op: mov64, Imm: 5}, 1 // behind the end is anything
			}
			insns, flags := slices.Clip(p.Insns), slices.Clip(p.Flags)
			index := make([]int32, count+1+group)
			index[0] = at
			var job blockJob
			if generic {
				w.layOutGeneric(insns, flags, index)
			} else {
				w.layOut(&job, insns, flags, index)
			}
			index = index[:count+1]
			drawn, reserved := numbers[:numberBytes*w.numHidden], uint32(0)
			if generic {
				reserved = w.hideGeneric(insns, drawn, index)
			} else {
				reserved = w.hide(&job, insns, drawn, index)
			}
			// Behind the ends there is anything.
			clear(w.hidden[w.numHidden:])
			end := index[count]
			return results{w.lists, w.half, index, w.out[:end], w.flags[:end], reserved}
		}
		want := run(true)
		got := run(false)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(lists{})); diff != "" {
			t.Fatalf("%d slots (-go +assembly):\n%s", count, diff)
		}
	}
}
