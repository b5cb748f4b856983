package bpfjit

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestDisassemble(t *testing.T) {
	for _, test := range []struct{ code, want string }{
		{"f30f1efa", "endbr64"},
		{"cc", "int3"},
		{"0f1f440000", "nop"},
		{"6690", "nop"},
		{"90", "nop"},
		{"4889e5", "mov rbp, rsp"},
		{"48b80102030405060708", "mov rax, 0x807060504030201"},
		{"438b541c04", "mov edx, dword ptr [r12+r11+0x4]"},
		{"f0490fc11c24", "lock xadd qword ptr [r12], rbx"},
		{"41ff9424c8fffdff", "call qword ptr [r12-0x20038]"},
		{"7405", "jz 0x7"},
		{"ebfe", "jmp 0x0"},
		{"e900010000", "jmp 0x105"},
		{"e8fbffffff", "call 0x0"},
		{"c4e2c1f7c0", "shlx rax, rax, rdi"},
		{"0f0b", "ud2"},
		{"06", "db 0x06"},
		{"48", "db 0x48"},
	} {
		code, err := hex.DecodeString(test.code)
		if err != nil {
			t.Fatal(err)
		}
		got := disassemble(code, 0)
		if got.text != test.want || got.size != len(code) && !strings.HasPrefix(got.text, "db") {
			t.Errorf("%s is %q, %d bytes; want %q", test.code, got.text, got.size, test.want)
		}
	}
}

// TestDisassembleInside enters a constant one byte late: it swallows the
// opcode behind it.
func TestDisassembleInside(t *testing.T) {
	code := []byte{0xb8, 0x90, 0x90, 0x90, 0x3c, 0x35, 0x90, 0x90, 0x90, 0x3c}
	var got []string
	for at := 1; at < len(code)-1; {
		text, size := Disassemble(code, at)
		got = append(got, text)
		at += size
	}
	if text := strings.Join(got, "; "); text != "nop; nop; nop; cmp al, 0x35; nop; nop; nop" {
		t.Error(text)
	}
}
