package encoder

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/arch/x86/x86asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// vectorArgs are the parameters that testdata/vectors.txt was made with.
var vectorArgs = Args{
	tables.ArgVsyscall: -0xa00000, tables.ArgLimit: 0x800000a00000, tables.ArgPercpu: 0x7fb0e028, tables.ArgUser: 0x10,
}

func decodeSlots(b []byte) (insns []abi.Insn) {
	for ; len(b) >= abi.InsnSize; b = b[abi.InsnSize:] {
		insns = append(insns, abi.Insn{
			Op: b[0], Regs: b[1], Off: int16(b[2]) | int16(b[3])<<8,
			Imm: int32(b[4]) | int32(b[5])<<8 | int32(b[6])<<16 | int32(b[7])<<24,
		})
	}
	return insns
}

// TestVectors encodes an instance of every row, alone and as the last of
// several.
func TestVectors(t *testing.T) {
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	byName := map[string]tables.Profile{}
	for _, p := range profiles {
		byName[p.name] = p.profile
	}
	before := []abi.Insn{{Op: 0xbf, Regs: 0x21}, {Op: 0x05, Off: 3}} // r1 = r2; goto +3
	count, rows := 0, map[uint16]bool{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var profile, form, slots, code string
		if k, err := fmt.Sscanf(lines.Text()+" ", "%s %s %s //%s", &profile, &form, &slots, &code); k < 3 {
			t.Fatalf("vectors.txt:%d: %v", n, err)
		}
		raw, err1 := hex.DecodeString(slots)
		want, err2 := hex.DecodeString(code)
		p, ok := byName[profile]
		if err1 != nil || err2 != nil || !ok || len(raw)%abi.InsnSize != 0 {
			t.Fatalf("vectors.txt:%d: %q isn't a vector", n, lines.Text())
		}
		insns := decodeSlots(raw)
		for _, im := range impls {
			for _, prog := range [][]abi.Insn{insns, slices.Concat(before, insns)} {
				got, row := encodeLast(t, im, p, prog, len(prog)-len(insns))
				if !bytes.Equal(got, want) {
					t.Errorf("vectors.txt:%d: %s %s in %s: %s writes % x, want % x", n, form, slots, profile, im.name, got, want)
				}
				rows[row] = true
			}
		}
		count++
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d vectors, %d of %d rows", count, len(rows), tables.NumRows)
	// All rows but None, Compiler and those of no bytes must be there.
	for id := range tables.Rows {
		if tables.Rows[id].Size > 0 && !rows[uint16(id)] {
			t.Errorf("no vector has row %d", id)
		}
	}
}

// encodeLast returns the bytes of the instruction at slot i of a program, a
// jump's own left out, and its row.
func encodeLast(t *testing.T, im impl, p tables.Profile, prog []abi.Insn, i int) ([]byte, uint16) {
	t.Helper()
	rows, pos, marks := make([]uint16, len(prog)), make([]Position, len(prog)+1), make([]uint32, len(prog))
	n, end := im.measure(&tables.Finders[p], prog, rows, pos, marks)
	if end != len(prog) {
		t.Fatalf("%s: no code for slot %d of %v", im.name, end, prog)
	}
	if row := &tables.Rows[rows[i]]; row.Kind == tables.Special {
		code := AppendRow(nil, row, prog[i], int64(prog[i].Imm), &vectorArgs)
		if len(code) != Size(row, prog[i]) {
			t.Errorf("%v: Size is %d, AppendRow writes %d bytes", prog[i], Size(row, prog[i]), len(code))
		}
		return code, rows[i]
	}
	code, ends := make([]byte, int(pos[len(prog)].Bytes())+Slack), make([]uint32, len(prog))
	if im.emit(code, prog, rows, make([]uint32, n), ends) < 0 {
		t.Fatalf("%s: can't emit %v", im.name, prog)
	}
	return code[pos[i].Bytes():ends[len(prog)-1]], rows[i]
}

// TestRandomPrograms compares the implementations on programs of all forms,
// in buffers that nothing may be read or written around.
func TestRandomPrograms(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			forms := coded(p.profile)
			seen := map[uint16]bool{}
			for k := range 200 {
				var prog []abi.Insn
				for range 1 + r.IntN(60) {
					f := pick(r, forms...)
					if r.IntN(200) == 0 {
						f = tables.Form(1 + r.IntN(tables.NumForms-1)) // perhaps without code here
					}
					prog = append(prog, instance(r, f)...)
				}
				if r.IntN(8) == 0 {
					prog = append(prog, abi.Insn{Op: abi.OpLdImm64, Imm: int32(r.Uint32())}) // the second slot is missing
				}
				gaps := make([]uint32, len(prog))
				for i := range gaps {
					gaps[i] = pick[uint32](r, 0, 2, 5, 6, 40)
				}
				same(t, p.profile, prog, func(k int) uint32 { return gaps[k] }, k%2 == 0, seen)
			}
			t.Logf("%d rows", len(seen))
			if len(seen) < 200 {
				t.Errorf("only %d rows reached", len(seen))
			}
		})
	}
}

// same encodes a program with every implementation; all must agree.
func same(t *testing.T, p tables.Profile, prog []abi.Insn, gap func(int) uint32, atEnd bool, rows map[uint16]bool) {
	t.Helper()
	var first result
	for i, im := range impls {
		got := encode(t, im, p, prog, gap, atEnd)
		if i == 0 {
			first = got
			for _, id := range got.Rows {
				rows[id] = true
			}
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Fatalf("%v\n%s and %s differ (-%[2]s +%[3]s):\n%s", prog, impls[0].name, im.name, diff)
		}
	}
}

// TestLongProgram goes over the length that the assembly does at once, with
// ld.imm64 and marks at the border.
func TestLongProgram(t *testing.T) {
	const border = 1 << 10 // chunk of the assembly
	for _, at := range []int{border - 2, border - 1, border} {
		var prog []abi.Insn
		for len(prog) < at {
			prog = append(prog, abi.Insn{Op: 0x07, Regs: 1, Imm: int32(len(prog))})
		}
		prog = append(prog, abi.Insn{Op: abi.OpLdImm64, Regs: 3, Imm: 5}, abi.Insn{Imm: 6}, abi.Insn{Op: abi.OpJa})
		for len(prog) < 2*border+5 {
			prog = append(prog, abi.Insn{Op: 0x15, Off: 3, Imm: int32(len(prog))})
		}
		same(t, tables.Kernel, prog, func(k int) uint32 { return uint32(k % 7) }, true, map[uint16]bool{})
		got := encode(t, impls[0], tables.Kernel, prog, func(int) uint32 { return 2 }, true)
		want := []byte{0x48, 0xba, 5, 0, 0, 0, 6, 0, 0, 0} // mov rdx, 0x600000005
		if code := got.Code[got.Ends[at-1]:got.Ends[at]]; !bytes.Equal(code, want) {
			t.Errorf("ld.imm64 at %d: % x, want % x", at, code, want)
		}
	}
}

// TestShort gives Emit too little of everything: it must say so and write
// nothing outside of what it was given.
func TestShort(t *testing.T) {
	// r0 = r1; r1 /= r6 (several steps); if r1 == 5 goto +1; exit; r2 = 7 ll
	prog := []abi.Insn{{Op: 0xbf, Regs: 0x10}, {Op: 0x3f, Regs: 0x61}, {Op: 0x15, Regs: 1, Off: 1, Imm: 5},
		{Op: abi.OpExit}, {Op: abi.OpLdImm64, Regs: 2, Imm: 7}, {Imm: 8}}
	for _, im := range impls {
		t.Run(im.name, func(t *testing.T) {
			n := len(prog)
			rows, pos, marks, ends := make([]uint16, n), make([]Position, n+1), make([]uint32, n), make([]uint32, n)
			if k, end := im.measure(&tables.Finders[tables.Kernel], prog, rows, pos, marks); k != 2 || end != n {
				t.Fatalf("%d marks, end at %d", k, end)
			}
			gaps := []uint32{2, 5}
			size := int(pos[n].Bytes()) + 2 + 5
			for room := range size + Slack {
				if got := im.emit(guarded[byte](t, room, true), prog, rows, gaps, ends); got != noRoom {
					t.Errorf("%d bytes of code: got %d", room, got)
				}
			}
			code := guarded[byte](t, size+Slack, true)
			for k := range gaps {
				short := guarded[uint32](t, k, true)
				copy(short, gaps)
				if got := im.emit(code, prog, rows, short, ends); got != noGap {
					t.Errorf("%d gaps: got %d", k, got)
				}
			}
			if got := im.emit(code, prog, rows, append(gaps, 9), ends); got != size {
				t.Errorf("a gap too many: got %d, want %d", got, size)
			}
			for _, id := range []uint16{tables.NumRows, 0xffff} {
				bad := slices.Clone(rows)
				bad[3] = id
				if got := im.emit(code, prog, bad, gaps, ends); got != noRow {
					t.Errorf("row %d: got %d", id, got)
				}
			}
		})
	}
}

// TestEmpty gives nothing to do.
func TestEmpty(t *testing.T) {
	if n, end := Measure(tables.Cage, nil, nil, make([]Position, 1), nil); n != 0 || end != 0 {
		t.Errorf("Measure: %d marks, end at %d", n, end)
	}
	if n := Emit(nil, nil, nil, nil, nil); n != 0 {
		t.Errorf("Emit: %d bytes", n)
	}
}

// TestEmitPanics tells that the wrapper doesn't keep a mistake to itself.
func TestEmitPanics(t *testing.T) {
	exit := []abi.Insn{{Op: abi.OpExit}}
	rows, pos, marks := make([]uint16, 1), make([]Position, 2), make([]uint32, 1)
	if n, end := Measure(tables.Kernel, exit, rows, pos, marks); n != 1 || end != 1 {
		t.Fatalf("%d marks, end at %d", n, end)
	}
	for _, test := range []struct {
		name string
		code int
		rows []uint16
		gaps []uint32
		want string
	}{
		{"code", Slack - 1, rows, []uint32{0}, "too short code"},
		{"code for the last gap", Slack + 8, rows, []uint32{9}, "too short code"},
		{"gaps", 100, rows, nil, "fewer gaps"},
		{"rows", 100, []uint16{tables.NumRows}, []uint32{0}, "rows that are none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "BUG: ") || !strings.Contains(s, test.want) {
					t.Errorf("panic %q, want %q in it", s, test.want)
				}
			}()
			Emit(make([]byte, test.code), exit, test.rows, test.gaps, make([]uint32, 1))
		})
	}
}

// TestDecode reads every form's code with a disassembler: whole instructions,
// all the bytes and no more.
func TestDecode(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			count := 0
			for _, f := range coded(p.profile) {
				for range 100 {
					prog := instance(r, f)
					row := RowOf(p.profile, prog[0])
					if len(prog) == 2 { // the row depends on the second slot
						row = &tables.Rows[find(&tables.Finders[p.profile], prog[0], Class(prog[0], prog[1].Imm))]
					}
					for _, im := range impls {
						code, id := encodeLast(t, im, p.profile, prog, 0)
						if &tables.Rows[id] != row {
							t.Fatalf("%s: %v has row %d", im.name, prog, id)
						}
						if row.Kind == tables.Compiler {
							continue
						}
						decode(t, f, prog, row, code)
						count++
					}
				}
			}
			t.Logf("%d instances", count)
		})
	}
}

func decode(t *testing.T, f tables.Form, prog []abi.Insn, row *tables.Row, code []byte) {
	t.Helper()
	if len(code) != int(row.Size) {
		t.Fatalf("%v %v: %d bytes, the row has %d", f, prog, len(code), row.Size)
	}
	last := 0
	for at := 0; at < len(code); at += last {
		inst, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			t.Fatalf("%v %v: % x at %d: %v", f, prog, code, at, err)
		}
		last = inst.Len
		if rel, ok := inst.Args[0].(x86asm.Rel); ok {
			if to := at + last + int(rel); to < 0 || to > len(code) {
				t.Fatalf("%v %v: % x: %v at %d leaves the row", f, prog, code, inst, at)
			}
		}
	}
	if last != LastStep(row, prog[0]) {
		t.Errorf("%v %v: % x: the last instruction has %d bytes, LastStep says %d", f, prog, code, last, LastStep(row, prog[0]))
	}
}

// TestContextOffset pins the one constant of abi that x86.txt repeats: where a
// helper call finds its stub.
func TestContextOffset(t *testing.T) {
	for _, in := range []abi.Insn{{Op: abi.OpCall, Imm: 7}, {Op: abi.OpCallx, Regs: 3}} {
		row := RowOf(tables.Cage, in)
		code := AppendRow(nil, row, in, int64(in.Imm), &Args{})
		inst, err := x86asm.Decode(code[len(code)-LastStep(row, in):], 64)
		if err != nil {
			t.Fatal(err)
		}
		want := x86asm.Mem{Base: x86asm.R12, Disp: abi.ContextOffset + abi.OffHelperStub}
		got, _ := inst.Args[0].(x86asm.Mem)
		got.Scale = 0
		got.Disp = int64(int32(got.Disp)) // x86asm doesn't extend the sign
		if inst.Op != x86asm.CALL || got != want {
			t.Errorf("%v: %v, want a call of %v", in, inst, want)
		}
	}
}

// FuzzImplementations: on any slots at all the implementations agree, and none
// touches what isn't its own.
func FuzzImplementations(f *testing.F) {
	f.Add(uint8(0), []byte{0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint8(3), []byte{0x18, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x79, 0x15, 0x80, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, profile uint8, code []byte) {
		p := profiles[int(profile)%len(profiles)].profile
		prog := decodeSlots(code)
		if len(prog) == 0 {
			return // Measure and Emit see to that themselves
		}
		same(t, p, prog, func(k int) uint32 { return uint32(k % 7) }, profile&0x80 == 0, map[uint16]bool{})
	})
}
