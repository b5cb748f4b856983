package blind

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// special is a program for the live kernel.
type special struct {
	name  string
	text  string
	insns []bpf.Insn // behind the text
	debug bool
}

// TestKernelForms compares with the live kernel programs that have what
// random ones don't: every form for certain, maps, tail calls, callbacks.
func TestKernelForms(t *testing.T) {
	c := comparison{constants: liveKernel(t)}
	array := newMap(t, kernel.MapSpec{Type: kernel.ArrayMap, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	global := newMap(t, kernel.MapSpec{Type: kernel.ArrayMap, KeySize: 4, ValueSize: 64, MaxEntries: 1})
	arena := newMap(t, kernel.MapSpec{Type: kernel.ArenaMap, MaxEntries: 4, Flags: kernel.MapFlagMmapable, Extra: 1 << 44})
	progs := newMap(t, kernel.MapSpec{Type: kernel.ProgArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	exit := "\nr0 = 0\nexit"
	var programs []special
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if form := &tables.Forms[f]; form.Source == tables.Allowed && form.Blind != tables.BlindNone && f != tables.FormLdSecond {
			programs = append(programs, special{name: form.Name, insns: everyConstant(t, form)})
		}
	}
	programs = append(programs,
		special{name: "map", text: fmt.Sprintf("*(u32 *)(r10 - 4) = 3\nr2 = r10\nr2 += -4\nr1 = map[fd:%d]\ncall 1\nif r0 == 0 goto +1\n*(u64 *)(r0 + 0) = 77", array) + exit},
		special{name: "map value", text: fmt.Sprintf("r1 = map[fd:%d][0]+8\n*(u32 *)(r1 + 4) = 0x12345678", global) + exit},
		special{name: "direct tail call", text: fmt.Sprintf("r2 = map[fd:%d]\nr3 = 1\ncall 12", progs) + exit},
		special{name: "indirect tail call", text: fmt.Sprintf("r6 = r1\ncall 7\nr3 = r0\nr3 &= 3\nr1 = r6\nr2 = map[fd:%d]\ncall 12", progs) + exit},
		special{name: "arena", text: fmt.Sprintf("r1 = map[fd:%d]\nr2 = 0x1000\nr2 = addr_space_cast(r2, 0, 1)\n*(u8 *)(r2 + 0) = 0x11\n*(u16 *)(r2 + 2) = 0x2222\n*(u32 *)(r2 + 4) = 0x33333333\n*(u64 *)(r2 + 8) = 0x44444444", arena) + exit, debug: true},
		special{name: "callback", text: "r1 = 5\nr2 = func pc+7\nr3 = r10\nr4 = 0\ncall 181\nr0 = 0x7654321\nr0 = 0\nexit\nr0 = 1\nif r1 s< 3 goto +1\nr0 = 0\nexit", debug: true},
		special{name: "may_goto", text: "r1 = 5\nmay_goto +2\nr1 ^= 0x1234567\ngoto -3" + exit},
	)
	var specs []*kernel.Spec
	var both []pairs
	for _, p := range programs {
		specs = append(specs, &kernel.Spec{Type: kernel.XDP, Insns: append(testprog.Parse(t, p.text).Insns, p.insns...), Debug: p.debug})
		plain, err := functions(specs[len(both)])
		if err != nil {
			t.Fatalf("%s: %+v", p.name, err)
		}
		both = append(both, pairs{program: testprog.Program{Name: p.name}, plain: plain})
	}
	kernel.WithHarden2(t, func() {
		for i := range both {
			var err error
			if both[i].blinded, err = functions(specs[i]); err != nil {
				t.Errorf("%s: blinded: %+v", programs[i].name, err)
				continue
			}
			c.add(t, &both[i])
		}
	})
	t.Log(c.String())
}

func newMap(t *testing.T, s kernel.MapSpec) (fd int) {
	m, err := kernel.NewMap(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m.FD()
}

// functions loads a program. It brings back what package kernel doesn't: that
// the address of a function is one, and is not blinded; and where the code is
// blinded, which stores go to the arena: all but those to the stack.
func functions(spec *kernel.Spec) ([]kernel.Function, error) {
	p, err := kernel.Load(spec)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	funcs, err := p.Functions()
	if err != nil {
		return nil, err
	}
	for _, f := range funcs {
		for slot := range f.Insns {
			if was := info.Xlated[f.Start+slot]; was.Op == abi.OpLdImm64 && was.Src() == abi.Imm64Func {
				f.Insns[slot].Regs = was.Regs
			}
			store := f.Insns[slot].Op&abi.ClassMask == abi.ClassST || f.Insns[slot].Op&abi.ClassMask == abi.ClassSTX
			if f.Arena && store && f.Insns[slot].Dst() != abi.R10 {
				f.Insns[slot].Op = f.Insns[slot].Op&^abi.ModeMask | 0xa0
			}
		}
	}
	return funcs, nil
}

// everyConstant makes a program of one form with constants of all lengths.
func everyConstant(t *testing.T, form *tables.FormInfo) []bpf.Insn {
	out := testprog.Parse(t, "call 7\nr6 = r0\ncall 7\nr7 = r0\n").Insns
	for _, imm := range []int32{0, 1, -1, 127, 128, -128, -129, 0x12345678, -0x12345678, 1<<31 - 1, -1 << 31} {
		op := form.Op & abi.OpMask
		alu := form.Op&abi.ClassMask == abi.ClassALU || form.Op&abi.ClassMask == abi.ClassALU64
		if alu && (op == 0x30 || op == 0x90) && imm == 0 {
			continue // no verifier lets it through
		}
		in := bpf.Insn{Op: form.Op, Regs: 7, Off: int16(form.Off.Value), Imm: imm}
		switch form.Op & abi.ClassMask {
		case abi.ClassJMP, abi.ClassJMP32:
			in.Regs, in.Off = 6, 1
			out = append(out, in, testprog.Parse(t, "r7 = r6").Insns[0])
			continue
		case abi.ClassST:
			in.Regs, in.Off = abi.R10, -16
		case abi.ClassLD:
			out = append(out, in, bpf.Insn{Imm: ^imm >> 3})
			continue
		}
		out = append(out, in)
	}
	return append(out, testprog.Parse(t, "r0 = 0\nexit").Insns...)
}

// TestKernelRange leads a jump over constants: with as many as fit the kernel
// takes the program blinded, with one more it refuses it, and so does
// Rewrite. The jump leads forward. Backward ones would crash the machine
// (CVE-2026-98816).
func TestKernelRange(t *testing.T) {
	c := comparison{constants: liveKernel(t)}
	for _, tt := range []struct {
		name string
		stay int // slots in the way besides 10,922 constants
		fits bool
	}{
		{"fits", 1, true},
		{"doesn't fit", 2, false},
	} {
		insns := slices.Concat(
			testprog.Parse(t, "call 7\nr6 = r0\ncall 7").Insns,
			testprog.Parse(t, fmt.Sprintf("if r0 == r6 goto %+d", 10922+tt.stay)).Insns,
			repeat(t, tt.stay, "r0 = r6"), repeat(t, 10922, "r0 += 5"),
			testprog.Parse(t, "r0 = 0\nexit").Insns)
		spec := &kernel.Spec{Type: kernel.XDP, Insns: insns}
		both := pairs{program: testprog.Program{Name: tt.name}}
		var err error
		if both.plain, err = functions(spec); err != nil {
			t.Fatalf("%s: %+v", tt.name, err)
		}
		kernel.WithHarden2(t, func() { both.blinded, err = functions(spec) })
		if tt.fits {
			if err != nil {
				t.Errorf("%s: blinded: %+v", tt.name, err)
				continue
			}
			c.add(t, &both)
			continue
		}
		var le *kernel.LoadError
		if !errors.As(err, &le) || !le.ByJIT() {
			t.Errorf("%s: the kernel's error is %v, not the JIT's", tt.name, err)
		}
		if _, err := Rewrite(&bpf.Program{Insns: both.plain[0].Insns}, nil); !errors.Is(err, bpf.ErrRange) {
			t.Errorf("%s: error %v, want %v", tt.name, err, bpf.ErrRange)
		}
	}
	t.Log(c.String())
}
