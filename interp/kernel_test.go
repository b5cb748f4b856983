package interp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// TestKernel runs random programs on the live kernel, too. They are of a type
// whose context is memory that they may read and write, and end by storing
// all that they have there: only R0's lower half comes back from the kernel
// otherwise.
//
//	R0-R7     numbers: from the context at first
//	R8        the value of a map: numbers, for atomics
//	R9        the context
//	R10-64 .. numbers on the stack
//
// Atomics stay off the stack, since the verifier of Linux 6.18 may think that
// it knows what one fetched from there when it doesn't, and take away branches
// that are needed.
func TestKernel(t *testing.T) {
	kernel.Require(t)
	rnd := testprog.Rand(testprog.Seed(t), 0)
	m, err := kernel.NewMap(kernel.MapSpec{Type: kernel.ArrayMap, KeySize: 4, ValueSize: numbersSize, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	inst := newInstance(t, cage.Plain, nil)
	value, err := inst.Space().Alloc(numbersSize)
	if err != nil {
		t.Fatal(err)
	}
	reached := map[string]int{}
	refused := 0
	const programs = 300
	for range programs {
		insns := numbers(rnd)
		ours := &bpf.Program{Insns: slices.Clone(insns)}
		insns[0] = bpf.Insn{Op: abi.OpLdImm64, Regs: abi.Registers(8, abi.Imm64MapValue), Imm: int32(m.FD())}
		ours.Insns[0] = bpf.Insn{Op: abi.OpLdImm64, Regs: abi.Registers(8, abi.Imm64Value), Imm: int32(uint32(value))}
		k, err := kernel.Load(&kernel.Spec{Type: kernel.Syscall, Flags: kernel.FlagSleepable, Insns: insns})
		var le *kernel.LoadError
		if errors.As(err, &le) {
			if refused++; refused < 4 {
				t.Logf("refused: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			ctx := make([]byte, contextSize)
			for i := range ctx {
				ctx[i] = byte(rnd.Uint32()) & byte(-rnd.IntN(2))
			}
			want, err := k.Run(kernel.RunOptions{Ctx: ctx, CtxOut: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := inst.LoadCtx(ctx); err != nil {
				t.Fatal(err)
			}
			got := prepare(t, ours).Run(inst, &Config{R1: abi.CtxBase})
			after := bytes.Clone(inst.Ctx()[:contextSize])
			inst.Reset(cage.WritesAll)
			if got.Stop != abi.StopExit || uint32(got.R0) != want.Return || !bytes.Equal(after, want.Ctx) {
				var text strings.Builder
				for _, i := range ours.Insns {
					fmt.Fprintln(&text, bpf.Text(i))
				}
				t.Fatalf("%+v, the kernel returns %#x; context (-kernel +interpreter)\n%s\n%s", got, want.Return, cmp.Diff(want.Ctx, after), &text)
			}
		}
		k.Close()
		for _, i := range ours.Insns {
			if f, ok := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm); ok {
				reached[tables.Forms[f].Name]++
			}
		}
	}
	t.Logf("%d programs of %d ran, with %d forms", programs-refused, programs, len(reached))
	if refused > programs/4 {
		t.Errorf("the kernel refused %d programs of %d", refused, programs)
	}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if name := tables.Forms[f].Name; comparedForm(f) && reached[name] == 0 {
			t.Errorf("%s was never run", name)
		}
	}
}

const (
	contextSize = 128
	numbersSize = 64 // on the stack and in the map
)

// comparedForm reports whether the random programs of this test contain a form.
func comparedForm(f tables.Form) bool {
	form := &tables.Forms[f]
	if form.Source != tables.Allowed {
		return false
	}
	switch strings.Split(form.Name, ".")[0] {
	case "alu64", "alu32", "end", "jmp32", "ldx", "st", "stx", "atomic32", "atomic64", "load_acq", "store_rel":
		return true
	case "jmp":
		return form.Flow == tables.FlowBranch && form.Op != abi.OpMayGoto || form.Op == abi.OpJa
	}
	return false
}

// numbers makes a random program that the verifier can prove safe. Its first
// instruction is to put the address of the map's value into R8.
func numbers(rnd *rand.Rand) []bpf.Insn {
	var forms []tables.Form
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if comparedForm(f) {
			forms = append(forms, f)
		}
	}
	const mov, ldxdw, stxdw = 0xbf, 0x79, 0x7b
	load := func(dst, base uint8, off int) bpf.Insn {
		return bpf.Insn{Op: ldxdw, Regs: abi.Registers(dst, base), Off: int16(off)}
	}
	store := func(base uint8, off int, src uint8) bpf.Insn {
		return bpf.Insn{Op: stxdw, Regs: abi.Registers(base, src), Off: int16(off)}
	}
	insns := []bpf.Insn{{}, {}, {Op: mov, Regs: abi.Registers(9, 1)}}
	for off := 0; off < numbersSize; off += 8 {
		insns = append(insns,
			load(0, 9, 8*rnd.IntN(contextSize/8)), store(10, off-numbersSize, 0),
			load(0, 9, 8*rnd.IntN(contextSize/8)), store(8, off, 0))
	}
	for r := range uint8(8) {
		insns = append(insns, load(r, 9, 8*int(r)))
	}
	n := 40 + rnd.IntN(60)
	for k := range n {
		insn := numberInsn(rnd, &tables.Forms[forms[rnd.IntN(len(forms))]], n-k-1)
		insns = append(insns, insn)
		if insn.Op == 0xc3 && insn.Imm == 0xf1 {
			// RFC 9669 wants R0 zero-extended. Linux 6.18 leaves that out
			// where it believes that nobody reads the upper half, and is
			// sometimes wrong.
			insns = append(insns, bpf.Insn{Op: 0xbc}) // w0 = w0
		}
	}
	for r := range uint8(8) {
		insns = append(insns, store(9, 8*int(r), r))
	}
	for off := 0; off < numbersSize; off += 8 {
		insns = append(insns, load(1, 8, off), store(9, numbersSize+off, 1))
	}
	return append(insns, bpf.Insn{Op: abi.OpExit})
}

// numberInsn makes an instruction of a form; behind is the number of
// instructions that a jump may skip.
func numberInsn(rnd *rand.Rand, f *tables.FormInfo, behind int) bpf.Insn {
	size := abi.AccessSize(f.Op)
	base, off := uint8(8), size*rnd.IntN(numbersSize/size)
	if !strings.HasPrefix(f.Name, "atomic") && rnd.IntN(2) == 0 {
		base, off = abi.R10, off-numbersSize
	}
	reg := func(o tables.Operand) uint8 {
		switch {
		case o.Fixed():
			return uint8(o.Value)
		case o.Use == tables.UseAddress:
			return base
		}
		return uint8(rnd.IntN(8))
	}
	insn := bpf.Insn{Op: f.Op, Off: int16(f.Off.Value), Imm: f.Imm.Value, Regs: abi.Registers(reg(f.Dst), reg(f.Src))}
	switch f.Off.Use {
	case tables.UseDisplacement:
		insn.Off = int16(off)
	case tables.UseDistance:
		if insn.Off = int16(rnd.IntN(min(behind, 5) + 1)); f.Flow == tables.FlowJump {
			insn.Off = 0 // nothing may be unreachable
		}
	}
	if f.Imm.Use == tables.UseConstant {
		insn.Imm = int32(rnd.Uint32()) >> rnd.IntN(32)
		switch op := f.Name[strings.LastIndex(f.Name[:len(f.Name)-2], ".")+1 : len(f.Name)-2]; op {
		case "lsh", "rsh", "arsh": // the verifier wants counts within the width
			insn.Imm &= 31
		case "div", "mod", "sdiv", "smod": // and no division by 0
			insn.Imm |= 1
		}
	}
	return insn
}
