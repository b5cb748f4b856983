//go:build amd64 && !purego

package blind

import (
	"io"
	"math/rand/v2"
	"slices"
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
		w  walk
		c  classTable
		in bpf.Insn
		r  rule
	)
	asm := unsafe.Offsetof(w.asm)
	want := map[string]uintptr{
		"walkHiding": unsafe.Offsetof(w.hiding), "walkUpper": unsafe.Offsetof(w.upper), "walkZero": unsafe.Offsetof(w.zero),
		"walkSpecial": unsafe.Offsetof(w.lists) + unsafe.Offsetof(w.lists.special), "walkHidden": unsafe.Offsetof(w.hidden), "walkNumHidden": unsafe.Offsetof(w.numHidden),
		"walkHalf": unsafe.Offsetof(w.half), "walkFound": asm + unsafe.Offsetof(w.asm.special), "walkReserved": asm + unsafe.Offsetof(w.asm.reserved),
		"walkAhead": asm + unsafe.Offsetof(w.asm.ahead), "walkFlagged": asm + unsafe.Offsetof(w.asm.flagged), "walkRest": asm + unsafe.Offsetof(w.asm.rest),
		"walkLastInsns": asm + unsafe.Offsetof(w.asm.insns), "walkLastFlags": asm + unsafe.Offsetof(w.asm.flags),

		"classOpLow": unsafe.Offsetof(c.opLow), "classOpHigh": unsafe.Offsetof(c.opHigh),
		"classDst": unsafe.Offsetof(c.dst), "classSrc": unsafe.Offsetof(c.src),
		"hides": hides, "upperBit": 3, "leads": leads, "moveClass": move,

		"ruleMov": unsafe.Offsetof(r.mov), "ruleXor": unsafe.Offsetof(r.xor), "ruleOwn": unsafe.Offsetof(r.own),
		"ruleReserved": unsafe.Offsetof(r.reserved), "ruleOther": unsafe.Offsetof(r.other), "ruleShift": 4,

		"page": 4096, "inserted": uintptr(bpf.Inserted), "unit": unit, "group": group,
		"anySource": anySource, "shiftLow": uintptr(uint32(shift)), "shiftImm": uintptr(shift >> 32),
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
		start := block * r.IntN(2)
		behind := r.IntN(2) * (1 + r.IntN(3*block)) // slots
		p := randomSlots(r, start+count+behind)
		type results struct {
			Lists     lists
			Half      uint32
			Index     []int32
			Out       []bpf.Insn
			Flags     []bpf.Flag
			Jumps     []uint64
			Malformed bool
		}
		half := uint32(r.IntN(1+start)) & 1
		run := func(rewrite func(*walk, *Result, *bpf.Program, io.Reader, int, int) error) results {
			const at = 5
			end := start + count
			room := at + upperLen*count + overrun
			w := &walk{half: half, jumps: make([]uint64, end/64+2)}
			for i := range w.asm.insns {
				w.asm.insns[i], w.asm.flags[i] = bpf.Insn{Op: mov64, Imm: 5}, 1 // behind the end is anything
			}
			to := &Result{Program: bpf.Program{Insns: make([]bpf.Insn, room), Flags: make([]bpf.Flag, room)}, Index: make([]int32, end+1+group)}
			to.Index[start] = at
			numbers := rand.New(rand.NewPCG(seed, n))
			err := rewrite(w, to, p, &words{next: numbers.Uint32}, start, end)
			// Behind the ends there is anything.
			clear(w.hidden[w.numHidden:])
			last := to.Index[end]
			return results{w.lists, w.half, to.Index[:end+1], to.Program.Insns[:last], to.Program.Flags[:last], w.jumps[:(end+63)/64], err != nil}
		}
		want, got := run((*walk).rewriteGeneric), run((*walk).rewrite)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(lists{})); diff != "" {
			t.Fatalf("%d slots (-go +assembly):\n%s", count, diff)
		}
	}
}

// TestComposeImplementations compares lists of all lengths, good and bad ones.
func TestComposeImplementations(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for i := range 2000 {
		n := 1 + i%300
		if i%100 == 99 {
			n = composePart + r.IntN(3*composePart)
		}
		first, second := make([]int32, n), make([]int32, 1+r.IntN(500))
		for k := range first {
			first[k] = r.Int32N(int32(len(second)))
		}
		for k := range second {
			second[k] = r.Int32()
		}
		if i%3 == 0 {
			first[r.IntN(n)] = []int32{-1, int32(len(second)), 1 << 30, -1 << 31}[r.IntN(4)]
		}
		want, got := make([]int32, n), make([]int32, n)
		wantOK, gotOK := composeGeneric(want, first, second), composeInto(got, first, second)
		if wantOK != gotOK || wantOK != (i%3 != 0) || wantOK && !slices.Equal(want, got) {
			t.Fatalf("%d of %d: %v and %v, want %v and %v", n, len(second), got, gotOK, want, wantOK)
		}
	}
}

// randomSlots returns slots of any kind, in memory that ends with them or doesn't.
func randomSlots(r *rand.Rand, n int) *bpf.Program {
	p := &bpf.Program{Insns: make([]bpf.Insn, n), Flags: make([]bpf.Flag, n)}
	for i := range p.Insns {
		p.Insns[i] = bpf.Insn{Op: uint8(r.Uint32()), Regs: uint8(r.Uint32()), Off: int16(r.Uint32()), Imm: int32(r.Uint32()) * int32(r.IntN(2))}
		if r.IntN(2) == 0 {
			p.Insns[i].Regs &= 7
		}
		p.Flags[i] = bpf.Flag(r.IntN(4))
	}
	p.Insns[n-1].Op &^= abi.OpLdImm64 // it would have a second half
	if r.IntN(2) == 0 {
		p.Insns, p.Flags = slices.Grow(p.Insns, 2*unit), slices.Grow(p.Flags, 2*unit)
	} else {
		p.Insns, p.Flags = slices.Clip(p.Insns), slices.Clip(p.Flags)
	}
	if r.IntN(2) == 0 {
		p.Flags = nil
	}
	return p
}
