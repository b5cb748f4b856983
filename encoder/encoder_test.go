package encoder

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/arch/x86/x86asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
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
	count, rows := 0, map[int]bool{}
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
		if insns[0].Op == 0 {
			continue // never alone, and without code
		}
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
		if tables.Rows[id].Size > 0 && !rows[id] {
			t.Errorf("no vector has row %d", id)
		}
	}
}

// encodeLast returns the bytes of the instruction at slot i of a program, a
// jump's own left out, and the number of its row.
func encodeLast(t *testing.T, im impl, p tables.Profile, prog []abi.Insn, i int) ([]byte, int) {
	t.Helper()
	d := newDraft(len(prog))
	if !im.write(d, p, prog, true) {
		t.Fatalf("%s: no code for %v", im.name, prog)
	}
	id := rowAt(p, prog, i)
	if row := &tables.Rows[id]; row.Kind == tables.Special {
		return AppendRow(nil, row, prog[i], int64(prog[i].Imm), &vectorArgs), id
	}
	_, marks := d.Before(uint32(len(prog)))
	d.Marks = d.Marks[:marks]
	code := make([]byte, d.Len()+Slack)
	im.join(d, code, 0, make([]Gap, len(d.Marks), len(d.Marks)+1), make([]uint32, len(prog)+EndsSlack))
	return code[d.Ends[i]-d.Ends[0] : d.Len()], id
}

// rowAt returns the number of the row of slot i.
func rowAt(p tables.Profile, prog []abi.Insn, i int) int {
	var high int32
	if i+1 < len(prog) {
		high = prog[i+1].Imm
	}
	return int(find(&tables.Finders[p], prog[i], Class(prog[i], high)))
}

// TestRandomPrograms compares the implementations on programs of all forms,
// in buffers that nothing may be read or written around.
func TestRandomPrograms(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			forms := coded(p.profile)
			seen := map[int]bool{}
			refused := 0
			for k := range 150 {
				var prog []abi.Insn
				for range 1 + r.IntN(60) {
					f := pick(r, forms...)
					if f == tables.FormLdSecond {
						continue
					}
					if r.IntN(2000) == 0 {
						f = tables.Form(1 + r.IntN(tables.NumForms-1)) // perhaps without code here
					}
					prog = append(prog, instance(r, f)...)
				}
				if r.IntN(16) == 0 {
					prog = append(prog, abi.Insn{Op: abi.OpLdImm64, Imm: int32(r.Uint32())}) // the second slot is missing
				}
				if len(prog) > 0 && r.IntN(8) == 0 {
					// Any bit may be wrong.
					w := word(prog[r.IntN(len(prog))]) ^ 1<<r.IntN(64)
					prog[r.IntN(len(prog))] = decodeSlots(binary.LittleEndian.AppendUint64(nil, w))[0]
				}
				if len(prog) == 0 {
					continue
				}
				gaps := make([]uint32, len(prog))
				for i := range gaps {
					gaps[i] = pick[uint32](r, 0, 2, 5, 6, 40)
				}
				if !same(t, p.profile, prog, func(k int) uint32 { return gaps[k] }, k%2 == 0, seen) {
					refused++
				}
			}
			t.Logf("%d rows, %d programs refused", len(seen), refused)
			if len(seen) < 200 || refused == 0 || refused > 110 {
				t.Errorf("only %d rows reached, or too many or few programs refused: %d", len(seen), refused)
			}
		})
	}
}

// same encodes a program with every implementation; all must agree. It tells
// whether it has code.
func same(t *testing.T, p tables.Profile, prog []abi.Insn, gap func(int) uint32, atEnd bool, rows map[int]bool) bool {
	t.Helper()
	var first result
	for i, im := range impls {
		got := encode(t, im, p, prog, gap, atEnd)
		if i == 0 {
			first = got
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Fatalf("%v\n%s and %s differ (-%[2]s +%[3]s):\n%s", prog, impls[0].name, im.name, diff)
		}
	}
	for i := range prog {
		if first.OK {
			rows[rowAt(p, prog, i)] = true
		}
	}
	return first.OK
}

// TestRefused: what is well-formed by itself has a draft, and nothing else.
// The other opinion is that of package bpf, which doesn't look at rows.
func TestRefused(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	refused, taken := 0, 0
	for range 20_000 {
		f := tables.Form(1 + r.IntN(tables.NumForms-1))
		if f == tables.FormLdSecond {
			continue
		}
		prog := instance(r, f)
		for range r.IntN(3) {
			k := r.IntN(len(prog))
			w := word(prog[k]) ^ 1<<r.IntN(64)
			prog[k] = decodeSlots(binary.LittleEndian.AppendUint64(nil, w))[0]
		}
		want := wellFormed(prog) && tables.Rows[rowAt(tables.Kernel, prog, 0)].Kind != tables.None
		var d Draft
		if got := d.Write(tables.Kernel, prog, false); got != want {
			t.Fatalf("%v: Write says %v", prog, got)
		}
		if want {
			taken++
		} else {
			refused++
		}
	}
	t.Logf("%d taken, %d refused", taken, refused)
	if taken < 1000 || refused < 1000 {
		t.Error("too few of one kind")
	}
}

// wellFormed tells what bpf.Check says of an instruction by itself in a
// translated program. It is put into one where jumps have somewhere to go.
func wellFormed(prog []abi.Insn) bool {
	f, ok := tables.FormOf(prog[0].Op, prog[0].Regs, prog[0].Off, prog[0].Imm)
	if info := &tables.Forms[f]; ok && (info.Off.Use == tables.UseDistance || info.Imm.Use == tables.UseDistance) {
		prog = slices.Clone(prog)
		if info.Off.Use == tables.UseDistance {
			prog[0].Off = 0
		} else if info.Flow == tables.FlowJump {
			prog[0].Imm = 0
		}
	}
	prog = append(slices.Clip(prog), abi.Insn{Op: abi.OpExit})
	return bpf.Check(&bpf.Program{Insns: prog}, bpf.Translated) == nil
}

// TestLongProgram goes over the length that the assembly does at once, with
// ld.imm64 and marks at the border.
func TestLongProgram(t *testing.T) {
	for _, border := range []int{16, 256, 1 << 10} { // a batch and a chunk of the assembly, several
		for _, at := range []int{border - 2, border - 1, border} {
			var prog []abi.Insn
			for len(prog) < at {
				prog = append(prog, abi.Insn{Op: 0x07, Regs: 1, Imm: int32(len(prog))})
			}
			prog = append(prog, abi.Insn{Op: abi.OpLdImm64, Regs: 3, Imm: 5}, abi.Insn{Imm: 6}, abi.Insn{Op: abi.OpJa})
			for len(prog) < 2*border+5 {
				prog = append(prog, abi.Insn{Op: 0x15, Off: 3, Imm: int32(len(prog))})
			}
			same(t, tables.Kernel, prog, func(k int) uint32 { return uint32(k % 7) }, true, map[int]bool{})
			got := encode(t, impls[0], tables.Kernel, prog, func(int) uint32 { return 2 }, true)
			want := []byte{0x48, 0xba, 5, 0, 0, 0, 6, 0, 0, 0} // mov rdx, 0x600000005
			if code := got.Code[got.Draft[at]:got.Draft[at+1]]; !bytes.Equal(code, want) {
				t.Errorf("ld.imm64 at %d: % x, want % x", at, code, want)
			}
		}
	}
}

// TestGrow: a Draft that has too little memory gets more, in the midst of a
// program too.
func TestGrow(t *testing.T) {
	var prog []abi.Insn
	for range 3000 {
		prog = append(prog, abi.Insn{Op: 0x3f, Regs: 0x61}) // r1 /= r6: 14 bytes
	}
	var small, large Draft
	large.Write(tables.Kernel, append(prog, prog...), false)
	small.Write(tables.Kernel, prog[:1], false)
	if !small.Write(tables.Kernel, prog, false) || !large.Write(tables.Kernel, prog, false) {
		t.Fatal("refused")
	}
	var codes [2][]byte
	for i, d := range []*Draft{&small, &large} {
		codes[i] = make([]byte, d.Len()+Slack)
		ends := make([]uint32, len(prog)+EndsSlack)
		d.Join(codes[i], 0, nil, ends)
		for k := range prog {
			if ends[k] != uint32(k+1)*uint32(d.Len()/len(prog)) {
				t.Fatalf("slot %d ends at %d", k, ends[k])
			}
		}
		codes[i] = codes[i][:d.Len()]
	}
	if !bytes.Equal(codes[0], codes[1]) {
		t.Error("the codes differ")
	}
}

// TestEmpty gives nothing to do.
func TestEmpty(t *testing.T) {
	var d Draft
	if !d.Write(tables.Cage, nil, false) || len(d.Marks) != 0 || d.Len() != 0 {
		t.Errorf("%+v", d)
	}
	if n := d.Join(make([]byte, 7+Slack), 7, nil, make([]uint32, EndsSlack)); n != 7 {
		t.Errorf("Join: %d bytes", n)
	}
}

// TestExtend: Extend may be called again when there is nothing left, and after it
// reported false.
func TestExtend(t *testing.T) {
	var d Draft
	if d.Extend(1) {
		t.Error("what was never begun is well-formed")
	}
	good := []abi.Insn{{Op: 0xb7}, {Op: abi.OpExit}}
	for _, test := range []struct {
		name  string
		insns []abi.Insn
		want  bool
	}{
		{"good", good, true}, {"bad", []abi.Insn{{Op: 0xff}, {Op: abi.OpExit}}, false}, {"good again", good, true},
		{"a half", []abi.Insn{{}, {Op: abi.OpExit}}, false}, {"bad at last", []abi.Insn{{Op: 0xb7}, {Op: 0xff}}, false},
	} {
		d.Begin(tables.Kernel, test.insns, false)
		for _, n := range []int{1, math.MaxInt, 1, 100} {
			if got := d.Extend(n) && d.Slots == len(test.insns); got && !test.want || n >= 100 && got != test.want {
				t.Errorf("%s: %t after %d slots", test.name, got, d.Slots)
			}
		}
	}
}

// TestJoinPanics tells that the wrapper doesn't keep a mistake to itself.
func TestJoinPanics(t *testing.T) {
	var d Draft
	if !d.Write(tables.Kernel, []abi.Insn{{Op: abi.OpExit}}, false) {
		t.Fatal("refused")
	}
	for _, test := range []struct {
		name           string
		code, at, ends int
		gaps           []Gap
		want           string
	}{
		{"code", Slack - 1, 0, 1 + EndsSlack, []Gap{0}, "too little room"},
		{"code for the gap", Slack + 8, 0, 1 + EndsSlack, []Gap{MakeGap(0, 9)}, "too little room"},
		{"code behind at", Slack + 8, 9, 1 + EndsSlack, []Gap{0}, "too little room"},
		{"ends", 100 + Slack, 0, EndsSlack, []Gap{0}, "too little room"},
		{"gaps", 100 + Slack, 0, 1 + EndsSlack, nil, "other gaps than marks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer func() {
				if s := fmt.Sprint(recover()); !strings.Contains(s, test.want) {
					t.Errorf("panic %q, want %q in it", s, test.want)
				}
			}()
			d.Join(make([]byte, test.code), test.at, test.gaps, make([]uint32, test.ends))
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
					if f == tables.FormLdSecond {
						continue
					}
					row := &tables.Rows[rowAt(p.profile, prog, 0)]
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
			return // Write sees to that itself
		}
		same(t, p, prog, func(k int) uint32 { return uint32(k % 7) }, profile&0x80 == 0, map[int]bool{})
	})
}
