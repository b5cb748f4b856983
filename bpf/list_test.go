package bpf_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
)

// sample makes an instruction of a form, with different operands.
func sample(f tables.Form) []bpf.Insn {
	form := &tables.Forms[f]
	insn := bpf.Insn{Op: form.Op, Off: int16(form.Off.Value), Imm: form.Imm.Value}
	dst, src := uint8(form.Dst.Value), uint8(form.Src.Value)
	if !form.Dst.Fixed() {
		dst = 3
	}
	if !form.Src.Fixed() {
		src = 10
	}
	insn.Regs = abi.Registers(dst, src)
	switch form.Off.Use {
	case tables.UseDisplacement:
		insn.Off = -8
	case tables.UseDistance:
		insn.Off = 7
	}
	switch form.Imm.Use {
	case tables.UseConstant:
		insn.Imm = -77
	case tables.UseDistance:
		insn.Imm = 70000
	}
	if f == tables.FormLdSecond {
		return nil
	}
	if form.Op == abi.OpLdImm64 {
		return []bpf.Insn{insn, {Imm: 0x1234}}
	}
	return []bpf.Insn{insn}
}

// TestTextGolden lists one instruction of each form.
func TestTextGolden(t *testing.T) {
	var got strings.Builder
	for f := tables.Form(1); f < tables.NumForms; f++ {
		insns := sample(f)
		if insns == nil {
			continue
		}
		p := &bpf.Program{Insns: insns}
		fmt.Fprintf(&got, "% x  %-20v %s\n", bpf.Encode(insns[:1]), f, p.Text(0))
	}
	golden.Compare(t, "testdata/forms.txt", got.String())
}

// TestTextParse reads every form back from its text.
func TestTextParse(t *testing.T) {
	for f := tables.Form(1); f < tables.NumForms; f++ {
		want := sample(f)
		if f == tables.FormAlu32Zext || want == nil {
			continue
		}
		if f == tables.FormLdImm64 || f == tables.FormLdMapValue || f == tables.FormLdMapIdxValue {
			want[1].Imm = -5
		} else if len(want) == 2 {
			want[1].Imm = 0 // its text doesn't show it
		}
		p := &bpf.Program{Insns: want}
		got, err := bpf.Parse(p.Text(0))
		if err != nil {
			t.Errorf("%v: %v", f, err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: %s (-want +got):\n%s", f, p.Text(0), d)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := bpf.Parse(`
; nothing
0: r1 = 0x100000000 ll <7>   ; two slots
2: if r1 < 0xffffffff goto -1 <2>
   *(u8 *)(r10 - 0x10) = 200
   r2 = -2147483648
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []bpf.Insn{{Op: 0x18, Regs: 1}, {Imm: 1}, {Op: 0xa5, Regs: 1, Off: -1, Imm: -1},
		{Op: 0x72, Regs: 10, Off: -16, Imm: 200}, {Op: 0xb7, Regs: 2, Imm: -1 << 31}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"r1", "r1 = 4294967296", "r1 = -2147483649", "goto 3", "goto +32768", "goto -32769", "r16 = 1",
		"r1 = *(u8 *)(r1 + 32768)", "r1 = *(u8 *)(r1 + )", "r1 = -r2", "exit exit", "r = 1", "r1 = 0x", "call pc3", "r1 = 1 ll"} {
		if insns, err := bpf.Parse("exit\n" + bad); bad != "r1 = 1 ll" && err == nil || err != nil && !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("%q: %v, %v", bad, insns, err)
		}
	}
}

func TestList(t *testing.T) {
	p := testprog.Parse(t, `
r1 = 0x1122334455667788 ll
if r1 s> 5 goto +3
r0 = *(u32 *)(r1 + 4)
lock *(u64 *)(r10 - 8) += r1
call 5
exit
gotol -7`)
	p.Insns = append(p.Insns, bpf.Insn{Op: 0xff, Regs: 0x21, Off: 3, Imm: 4})
	p.Flags = make([]bpf.Flag, len(p.Insns))
	p.Flags[3], p.Flags[5] = bpf.Probe, bpf.Inserted
	p.Origin = []int32{0, 1, 2, 3, 4, 4, 5, 6, 7}
	var got strings.Builder
	for _, o := range []bpf.ListOptions{{}, {Numbers: true}, {Bytes: true}, {Marks: true}, {Numbers: true, Bytes: true, Marks: true}} {
		fmt.Fprintf(&got, "%+v\n", o)
		if err := p.List(&got, o); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
	}
	golden.Compare(t, "testdata/list.txt", got.String())
}

func TestDecode(t *testing.T) {
	code := []byte{0x85, 0x21, 0xfe, 0xff, 1, 2, 3, 0x84, 0, 0, 0, 0, 0, 0, 0, 0}
	insns, err := bpf.Decode(code)
	want := []bpf.Insn{{Op: 0x85, Regs: 0x21, Off: -2, Imm: -0x7bfcfdff}, {}}
	if d := cmp.Diff(want, insns); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if d := cmp.Diff(code, bpf.Encode(insns)); d != "" {
		t.Error(d)
	}
	if view, ok := bpf.View(code); ok && !slices.Equal(view, insns) {
		t.Errorf("viewed %v, decoded %v", view, insns)
	}
	if _, ok := bpf.View(code[:11]); ok {
		t.Error("a view of a slot that is cut off")
	}
	_, err = bpf.Decode(code[:11])
	if err == nil || err.Error() != "slot 1: the code ends after 3 of 8 bytes" {
		t.Errorf("error %v", err)
	}
}
