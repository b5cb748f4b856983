package bpfjit

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestFormatValue(t *testing.T) {
	u8 := &btf.Int{Name: "unsigned char", Size: 1}
	u16 := &btf.Int{Name: "unsigned short", Size: 2}
	s32 := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	u64 := &btf.Int{Name: "unsigned long long", Size: 8}
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	boolean := &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	kind := &btf.Enum{Name: "kind", Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 0}, {Name: "B", Value: 1}}}
	signed := &btf.Enum{Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "MINUS", Value: ^uint64(0)}}}
	pair := &btf.Struct{Name: "pair", Size: 8, Members: []btf.Member{
		{Name: "a", Type: u16, Offset: 0},
		{Name: "b", Type: &btf.Typedef{Name: "t", Type: s32}, Offset: 32},
	}}
	bits := &btf.Struct{Size: 4, Members: []btf.Member{{Name: "f", Type: s32, BitfieldSize: 3}}}

	for _, test := range []struct {
		t    btf.Type
		b    string
		want string
	}{
		{u8, "\xff", "255"},
		{char, "\xff", "-1"},
		{s32, "\xfe\xff\xff\xff", "-2"},
		{u64, "\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"},
		{boolean, "\x01", "true"},
		{boolean, "\x02", "2"},
		{&btf.Const{Type: &btf.Volatile{Type: u16}}, "\x01\x02", "513"},
		{kind, "\x01\x00\x00\x00", "B"},
		{kind, "\x07\x00\x00\x00", "7"},
		{signed, "\xff\xff\xff\xff", "MINUS"},
		{signed, "\xfe\xff\xff\xff", "-2"},
		{&btf.Pointer{Target: u8}, "\x10\x00\x00\x80\x00\x00\x00\x00", "0x80000010"},
		{&btf.Float{Size: 4}, "\x00\x00\x80\x3f", "1"},
		{pair, "\x01\x00\x00\x00\xff\xff\xff\xff", "{a=1 b=-1}"},
		{bits, "\x01\x00\x00\x00", "{f=?}"},
		{&btf.Array{Type: u16, Nelems: 3, Index: s32}, "\x01\x00\x02\x00\x03\x00", "[1 2 3]"},
		{&btf.Array{Type: char, Nelems: 4, Index: s32}, "abc\x00", `"abc"`},
		{&btf.Array{Type: char, Nelems: 4, Index: s32}, "a\x00c\x00", "[97 0 99 0]"},
		{&btf.Array{Type: char, Nelems: 2, Index: s32}, "\x00\x00", "[0 0]"},
		// What isn't known, or of another size, is hex.
		{nil, "\x01\x02", "0102"},
		{u16, "\x01\x02\x03", "010203"},
		{&btf.Union{Size: 2}, "\x01\x02", "0102"},
		{&btf.Int{Name: "__int128", Size: 16}, "0123456789abcdef", "30313233343536373839616263646566"},
		{&btf.Void{}, "\x01", "01"},
	} {
		if got := formatValue(test.t, []byte(test.b)); got != test.want {
			t.Errorf("%v of % x is %s, want %s", test.t, test.b, got, test.want)
		}
	}
}

// TestFormatLong: of values that nobody wants to read there is the beginning.
func TestFormatLong(t *testing.T) {
	const size = 1 << 28
	b := make([]byte, size)
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	row := &btf.Array{Type: char, Nelems: 1 << 8}
	for name, test := range map[string]struct {
		t    btf.Type
		want string
	}{
		"bytes":   {&btf.Array{Type: char, Nelems: size}, "[0 0 0 "},
		"rows":    {&btf.Array{Type: row, Nelems: size >> 8}, "[[0 0 0 "},
		"no type": {nil, "000000"},
		"structs": {&btf.Array{Type: &btf.Struct{Size: 1, Members: []btf.Member{{Name: "m", Type: char}}}, Nelems: size}, "[{m=0} {m=0} "},
	} {
		got := formatValue(test.t, b)
		if len(got) > 2*longValue || !strings.HasPrefix(got, test.want) || !strings.Contains(got, "...") {
			t.Errorf("%s: %d bytes of text, %.20s", name, len(got), got)
		}
	}
}
