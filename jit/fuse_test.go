package jit

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// sum returns what a lea decodes to: destination, its width, and how often each
// register is added, the displacement at the end.
func sum(t *testing.T, code []byte) (dst x86asm.Reg, sum [17]int64) {
	t.Helper()
	in, err := x86asm.Decode(code, 64)
	if err != nil || in.Len != len(code) || in.Op != x86asm.LEA {
		t.Fatalf("% x: %v, %v", code, in, err)
	}
	m := in.Args[1].(x86asm.Mem)
	for _, r := range []x86asm.Reg{m.Base, m.Index} {
		if r != 0 {
			sum[r-x86asm.RAX]++
		}
	}
	if m.Index != 0 && m.Scale != 1 {
		t.Fatalf("% x: scale %d", code, m.Scale)
	}
	sum[16] = int64(int32(m.Disp))
	return in.Args[0].(x86asm.Reg), sum
}

// TestSum decodes the lea of all registers.
func TestSum(t *testing.T) {
	for _, imm := range []int32{0, 1, -1, 127, 128, -128, -129, 1<<31 - 1, -1 << 31} {
		for dst := range uint8(12) {
			for src := range uint8(12) {
				for off := range int16(13) {
					for _, op := range []uint8{abi.OpSum, abi.OpSum32} {
						in := abi.Insn{Op: op, Regs: abi.Registers(dst, src), Off: off, Imm: imm}
						got, gotSum := sum(t, appendSum(nil, in))
						want := x86asm.Reg(abi.Native[dst]) + x86asm.RAX
						if op == abi.OpSum32 {
							want -= x86asm.RAX - x86asm.EAX
						}
						scratch := in
						scratch.Off += sumScratch
						if r, s := sum(t, appendSum(nil, scratch)); r != x86asm.R11L || s != gotSum {
							t.Fatalf("%+v: %v of %v, want r11d of %v", scratch, r, s, gotSum)
						}
						var wantSum [17]int64
						wantSum[abi.Native[src]]++
						if off > 0 {
							wantSum[abi.Native[off-1]]++
						}
						wantSum[16] = int64(imm)
						if got != want || gotSum != wantSum {
							t.Fatalf("%+v: %v of %v, want %v of %v", in, got, gotSum, want, wantSum)
						}
					}
				}
			}
		}
	}
}

// TestFuse says what is fused and what isn't.
func TestFuse(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"constant", "r1 = r10\nr1 += -8\nexit", "lea r1, r10 - 8\n-\nexit"},
		{"large constant", "r1 = r10\nr1 += 32768\nexit", "sum r1, r10, 32768 [0]\n-\nexit"},
		{"zero", "r1 = r2\nr1 += 0\nexit", "sum r1, r2, 0 [0]\n-\nexit"},
		{"constant of 32 bits", "w1 = w2\nw1 += 32767\nexit", "lea w1, w2 + 32767\n-\nexit"},
		{"nothing behind", "exit\nr1 = r2\nr1 += 1", "exit\nlea r1, r2 + 1\n-"},
		{"register", "r1 = r2\nr1 += r3\nexit", "sum r1, r2, 0 [4]\n-\nexit"},
		{"both", "r1 = r2\nr1 += -8\nr1 += r3\nexit", "sum r1, r2, -8 [4]\n-\n-\nexit"},
		{"both, turned", "r1 = r2\nr1 += r0\nr1 += -8\nexit", "sum r1, r2, -8 [1]\n-\n-\nexit"},
		{"32 bits", "w1 = w2\nw1 += 5\nw1 += w3\nexit", "sum w1, w2, 5 [4]\n-\n-\nexit"},
		{"twice itself", "r1 = r2\nr1 += r1\nr1 += 1\nexit", "sum r1, r2, 1 [3]\n-\n-\nexit"},
		{"twice the sum", "r1 = r2\nr1 += 1\nr1 += r1\nexit", "lea r1, r2 + 1\n-\nr1 += r1\nexit"},
		{"two constants", "r1 = r2\nr1 += 1\nr1 += 2\nexit", "lea r1, r2 + 1\n-\nr1 += 2\nexit"},
		{"two registers", "r1 = r2\nr1 += r3\nr1 += r4\nexit", "sum r1, r2, 0 [4]\n-\nr1 += r4\nexit"},
		{"two moves", "r1 = r2\nr3 = r4\nr3 += 1\nexit", "r1 = r2\nlea r3, r4 + 1\n-\nexit"},
		{"into a load", "r1 = r2\nr1 += r3\nr1 = *(u64 *)(r1 + 8)\nexit", "sum r1, r2, 0 [260]\n-\nr1 = *(u64 *)(r1 + 8) again\nexit"},
		{"into another load", "r1 = r2\nr1 += r3\nr4 = *(u64 *)(r1 + 8)\nexit", "sum r1, r2, 0 [4]\n-\nr4 = *(u64 *)(r1 + 8)\nexit"},
		{"another register", "r1 = r2\nr3 += 1\nexit", "r1 = r2\nr3 += 1\nexit"},
		{"itself", "r1 = r1\nr1 += 1\nexit", "r1 = r1\nr1 += 1\nexit"},
		{"widths", "r1 = r2\nw1 += 1\nw3 = w4\nr3 += 1\nexit", "r1 = r2\nw1 += 1\nw3 = w4\nr3 += 1\nexit"},
		{"sign extension", "r1 = (s32)r2\nr1 += 1\nexit", "r1 = (s32)r2\nr1 += 1\nexit"},
		{"subtraction", "r1 = r2\nr1 -= 1\nexit", "r1 = r2\nr1 -= 1\nexit"},
		{"a jump between", "if r1 == 0 goto +1\nr1 = r2\nr1 += 1\nexit", "if r1 == 0 goto +1 <2>\nr1 = r2\nr1 += 1\nexit"},
		{"a jump behind", "if r1 == 0 goto +2\nr1 = r2\nr1 += 1\nr1 += r3\nexit", "if r1 == 0 goto +2 <3>\nlea r1, r2 + 1\n-\nr1 += r3\nexit"},
		{"a jump to the move", "if r1 == 0 goto +0\nr1 = r2\nr1 += 1\nexit", "if r1 == 0 goto +0 <1>\nlea r1, r2 + 1\n-\nexit"},
		{"a long jump between", "r0 = r2\nr0 += 1\ngotol -2\nexit", "r0 = r2\nr0 += 1\ngotol -2 <1>\nexit"},
		{"constants of two slots", "r1 = 7 ll\nr1 += 1\nexit", "r1 = 0x7 ll\nr1 += 1\nexit"},
		{"the end", "exit\nr1 = r2", "exit\nr1 = r2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			insns, err := bpf.Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			c := compiler{insns: insns}
			c.fuse()
			p := &bpf.Program{Insns: c.insns}
			got := ""
			for i, in := range c.insns {
				switch {
				case in.Op == abi.OpSum || in.Op == abi.OpSum32:
					got += fmt.Sprintf("%s [%d]\n", p.Text(i), in.Off)
				case in == nothing && insns[i] != nothing:
					got += "-\n"
				case i > 0 && insns[i-1].Op == abi.OpLdImm64:
				default:
					got += p.Text(i) + "\n"
				}
			}
			if d := cmp.Diff(tt.want+"\n", got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestFuseRandom executes moves and additions before and behind fusing.
func TestFuseRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		insns := make([]abi.Insn, 2+r.IntN(10))
		for i := range insns {
			ops := []uint8{opMoveX, opMoveX, opAddX, opAddK, opMoveX - narrow, opAddX - narrow, opAddK - narrow}
			in := abi.Insn{Op: ops[r.IntN(len(ops))], Regs: abi.Registers(uint8(r.IntN(3)), uint8(r.IntN(3)))}
			if in.Op&abi.SourceX == 0 {
				in.Regs &= 15
				in.Imm = int32(r.Uint32()) >> r.IntN(32)
			}
			insns[i] = in
		}
		start := [3]uint64{r.Uint64(), r.Uint64(), r.Uint64()}
		c := compiler{insns: insns}
		c.fuse()
		if want, got := evaluate(insns, start), evaluate(c.insns, start); got != want {
			t.Fatalf("%v became %v: %x, want %x", insns, c.insns, got, want)
		}
	}
}

func evaluate(insns []abi.Insn, r [3]uint64) [3]uint64 {
	for _, in := range insns {
		d, s := in.Dst(), in.Src()
		var v uint64
		switch in.Op | narrow {
		case opMoveX | narrow:
			v = r[s]
		case opAddX | narrow:
			v = r[d] + r[s]
		case opAddK | narrow:
			v = r[d] + uint64(int64(in.Imm))
		case abi.OpLea | narrow:
			v = r[s] + uint64(int64(in.Off))
		case abi.OpSum | narrow:
			v = r[s] + uint64(int64(in.Imm))
			if in.Off > 0 {
				v += r[in.Off-1]
			}
		}
		if in.Op&abi.ClassMask == abi.ClassALU {
			v = uint64(uint32(v))
		}
		r[d] = v
	}
	return r
}
