package jit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// TestAgain says which accesses find their address in r11: those marked with a
// star.
func TestAgain(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"loads", "  r1 = *(u32 *)(r2 + 0)\n* r3 = *(u8 *)(r2 + 8)\n* r2 = *(s16 *)(r2 - 4)\n  r1 = *(u64 *)(r2 + 0)\n  exit"},
		{"stores", "  *(u8 *)(r2 + 0) = 7\n* *(u64 *)(r2 + 8) = r2\n* *(u32 *)(r2 + 0) = 7\n* r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"another register", "  r1 = *(u8 *)(r2 + 0)\n  r1 = *(u8 *)(r3 + 0)\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"the frame keeps it", "  r1 = *(u8 *)(r2 + 0)\n  r3 = *(u64 *)(r10 - 8)\n  *(u64 *)(r10 - 8) = r3\n* r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"arithmetic", "  r1 = *(u8 *)(r2 + 0)\n  r3 += r2\n  r4 <<= 3\n  r5 = bswap16 r5\n  r0 = 5 ll\n* r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"written", "  r1 = *(u8 *)(r2 + 0)\n  r2 += 1\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"moved to", "  r1 = *(u8 *)(r2 + 0)\n  r2 = r3\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"a constant", "  r1 = *(u8 *)(r2 + 0)\n  r2 = 5 ll\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"division", "  r1 = *(u8 *)(r2 + 0)\n  r3 /= 7\n  r1 = *(u8 *)(r2 + 0)\n  r3 s%= 7\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"shift by a register", "  r1 = *(u8 *)(r2 + 0)\n  r3 >>= r4\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"atomic", "  r1 = *(u8 *)(r2 + 0)\n  lock *(u64 *)(r2 + 0) += r3\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"helper", "  r1 = *(u8 *)(r6 + 0)\n  call 7\n  r1 = *(u8 *)(r6 + 0)\n  exit"},
		{"charge", "  r1 = *(u8 *)(r2 + 0)\n  charge 5\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"a branch not taken", "  r1 = *(u8 *)(r2 + 0)\n  if r1 == 7 goto +1\n* r1 = *(u8 *)(r2 + 0)\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"jumped to", "  goto +1\n  r1 = *(u8 *)(r2 + 0)\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
		{"jumped to from afar", "  gotol +1\n  r1 = *(u8 *)(r2 + 0)\n  r1 = *(u8 *)(r2 + 0)\n  exit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var plain []string
			lines := strings.Split(tt.text, "\n")
			for _, l := range lines {
				plain = append(plain, l[2:])
			}
			insns, err := bpf.Parse(strings.Join(plain, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			c := compiler{insns: insns}
			c.fuse()
			slot := 0
			for i, l := range lines {
				want := l[0] == '*'
				row := encoder.RowOf(tables.Cage, c.insns[slot])
				f, ok := tables.FormOf(c.insns[slot].Op, c.insns[slot].Regs, c.insns[slot].Off, c.insns[slot].Imm)
				if got := strings.Contains(f.String(), ".again."); !ok || got != want || row.Kind == tables.None {
					t.Errorf("line %d, %s: is %v", i, plain[i], f)
				}
				if slot++; insns[slot-1].Op == abi.OpLdImm64 {
					slot++
				}
			}
		})
	}
}

// TestAgainRows: an access that finds its address in r11 is what it is
// otherwise, without the first move.
func TestAgainRows(t *testing.T) {
	for _, text := range []string{
		"%s = *(u8 *)(r2 + %d)", "%s = *(u16 *)(r2 + %d)", "%s = *(u32 *)(r2 + %d)", "%s = *(u64 *)(r2 + %d)",
		"%s = *(s8 *)(r2 + %d)", "%s = *(s16 *)(r2 + %d)", "%s = *(s32 *)(r2 + %d)",
	} {
		for _, dst := range []string{"r0", "r8"} {
			for _, off := range []int{0, 8, 300} {
				compareAgain(t, fmt.Sprintf(text, dst, off))
			}
		}
	}
	for _, size := range []string{"u8", "u16", "u32", "u64"} {
		for _, off := range []int{0, 8, 300} {
			for _, src := range []string{"r1", "r9", "-7"} {
				compareAgain(t, fmt.Sprintf("*(%s *)(r2 + %d) = %s", size, off, src))
			}
		}
	}
}

// compareAgain compares the rows of an access through r2.
func compareAgain(t *testing.T, text string) {
	t.Helper()
	insns, err := bpf.Parse(text + "\nexit")
	if err != nil {
		t.Fatal(err)
	}
	in := insns[0]
	again := in
	markAgain(&again)
	code := func(in abi.Insn) string {
		return fmt.Sprintf("% x", encoder.AppendRow(nil, encoder.RowOf(tables.Cage, in), in, int64(insns[0].Imm), &encoder.Args{}))
	}
	const move = "41 89 f3 " // mov r11d, esi
	if got, want := move+code(again), code(in); got != want {
		t.Errorf("%s: again %s, alone %s", text, got, want)
	}
}
