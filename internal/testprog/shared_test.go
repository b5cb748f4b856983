package testprog

import (
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/google/go-cmp/cmp"
)

func TestShared(t *testing.T) {
	corpus, open, negative, golden := Corpus(t), Open(t), Negative(t), Golden(t)
	if len(corpus) != 208 || len(open) != 210 || len(negative) != 45 || len(golden) != 289 {
		t.Errorf("%d corpus, %d open, %d negative, %d golden rows", len(corpus), len(open), len(negative), len(golden))
	}
	slots := 0
	for _, r := range corpus {
		slots += len(r.Insns)
	}
	if slots != 194375 {
		t.Errorf("the corpus has %d slots", slots)
	}
	for _, r := range open {
		if !r.Expect.Set || len(r.Insns) == 0 || len(r.Groups) == 0 {
			t.Errorf("open row %q is incomplete: %+v", r.Name, r)
		}
	}
	for _, r := range negative {
		if f := r.Field(); f != "off" && f != "imm" && f != "src" && f != "dst" {
			t.Errorf("negative row %q is about field %q", r.Name, f)
		}
	}
	for _, r := range golden {
		if len(r.Jited) == 0 || len(r.Jited) != len(r.Mask) || len(r.ProgLens) != r.Passes || r.ProgLens[r.Passes-1] != len(r.Jited) {
			t.Errorf("golden row %q is incomplete", r.Desc)
		}
	}
}

func TestRows(t *testing.T) {
	got, err := readRows[OpenRow](strings.NewReader(
		`{"name":"a","program_hex":"b700000005000000 9500000000000000","expect":"0x5"}`), false)
	if err == nil {
		t.Errorf("a blank among the digits: %+v", got)
	}
	got, err = readRows[OpenRow](strings.NewReader(
		`{"name":"a","program_hex":"b7000000050000009500000000000000","mem_hex":"01ff","expect":"0x5"}
		{"name":"b","program_hex":"","mem_hex":"","expect":null}`), false)
	want := []OpenRow{
		{Name: "a", Insns: Slots{{Op: 0xb7, Imm: 5}, {Op: abi.OpExit}}, Memory: Hex{1, 0xff}, Expect: Word{5, true}},
		{Name: "b", Insns: Slots{}, Memory: Hex{}},
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}
