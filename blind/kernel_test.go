package blind

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/oracle"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/arch/x86/x86asm"
)

// envPrograms is how many random programs TestKernel takes.
const envPrograms = "BPFJIT_PROGRAMS"

// pairs is what the kernel made of one program, plain and blinded.
type pairs struct {
	program       testprog.Program
	plain         []kernel.Function
	plainResult   *kernel.Result
	blinded       []kernel.Function
	blindedResult *kernel.Result
}

// TestKernel compares with the live kernel, on random programs:
//
//   - what Rewrite makes of the plain translated instructions is what the
//     kernel blinded, with the kernel's random numbers. Of a program of one
//     function the kernel shows the blinded instructions, which have the
//     numbers; of others only the machine code has.
//   - the machine code of our instructions is the kernel's, byte for byte
//   - both programs compute the same
//
// BPFJIT_PROGRAMS sets the number of programs, BPFJIT_SEED replays.
func TestKernel(t *testing.T) {
	n := 100
	if s := os.Getenv(envPrograms); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := testprog.Seed(t)
	c := comparison{constants: liveKernel(t)}
	for i := 0; i < n; i += batch {
		for _, p := range loadBoth(t, seed, i, min(i+batch, n)) {
			c.add(t, &p)
			if a, b := p.plainResult, p.blindedResult; a.Return != b.Return || !bytes.Equal(a.Data, b.Data) {
				t.Errorf("%s: plain gives %#x, blinded %#x; packets equal: %v", p.program.Name, a.Return, b.Return, bytes.Equal(a.Data, b.Data))
			}
		}
	}
	t.Log(c.String())
	if c.programs < n*9/10 {
		t.Errorf("only %d of %d programs were compared", c.programs, n)
	}
}

// liveKernel is kernel.Require without the lock, which these tests take for
// themselves.
func liveKernel(t *testing.T) *kernel.Constants {
	t.Helper()
	if err := kernel.Available(); err != nil && os.Getenv(kernel.EnvRequire) != "1" {
		t.Skipf("needs a live kernel: %v", err)
	}
	k, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// batch is how many programs are loaded while nobody else can load any.
const batch = 100

// comparison counts what was compared.
type comparison struct {
	constants                   *kernel.Constants
	programs, single, functions int
	numbers, slots, bytes       int
}

func (c *comparison) String() string {
	return fmt.Sprintf("%d programs, %d of one function; %d functions, %d slots when blinded, %d random numbers, %d bytes",
		c.programs, c.single, c.functions, c.slots, c.numbers, c.bytes)
}

// add compares all functions of a program.
func (c *comparison) add(t *testing.T, p *pairs) {
	t.Helper()
	c.programs++
	if len(p.plain) == 1 {
		c.single++
	}
	for f := range p.plain {
		hidden, numbers, err := compareBlinded(c.constants, p, f)
		if err != nil {
			t.Errorf("%s: function %d of %d: %v", p.program.Name, f, len(p.plain), err)
		}
		c.functions++
		c.numbers += numbers
		c.slots += len(hidden)
		c.bytes += len(p.blinded[f].Jited)
	}
}

// loadBoth makes random programs i to end and loads each plain and blinded.
// Programs that the verifier doesn't like are logged, and those that would be
// dangerous to blind.
func loadBoth(t *testing.T, seed uint64, i, end int) (kept []pairs) {
	load := func(p *testprog.Program) ([]kernel.Function, *kernel.Result, error) {
		loaded, err := kernel.Load(&kernel.Spec{Type: kernel.Type(p.Kind), Insns: p.Insns})
		if err != nil {
			return nil, nil, err
		}
		defer loaded.Close()
		funcs, err := loaded.Functions()
		if err != nil {
			return nil, nil, err
		}
		result, err := loaded.Run(kernel.RunOptions{Data: p.Packet})
		return funcs, result, err
	}
	var list []pairs
	for ; i < end; i++ {
		p := pairs{program: testprog.Verified(seed, uint64(i), testprog.Limits{})}
		var err error
		var le *kernel.LoadError
		if p.plain, p.plainResult, err = load(&p.program); errors.As(err, &le) && !le.ByJIT() {
			t.Logf("%s: %v", p.program.Name, err)
		} else if err != nil {
			t.Fatalf("%s: %v", p.program.Name, err)
		} else {
			list = append(list, p)
		}
	}
	kernel.WithHarden2(t, func() {
		for _, p := range list {
			var err error
			p.blinded, p.blindedResult, err = load(&p.program)
			switch {
			case errors.Is(err, kernel.ErrDangerous):
				t.Logf("%s: %v", p.program.Name, err)
			case err != nil:
				t.Errorf("%s: blinded: %v", p.program.Name, err)
			default:
				kept = append(kept, p)
			}
		}
	})
	return kept
}

// compareBlinded rewrites a function with the kernel's random numbers and
// compares instructions, where the kernel shows them, and machine code. It
// returns the rewritten instructions and how many numbers they took.
func compareBlinded(k *kernel.Constants, p *pairs, f int) ([]bpf.Insn, int, error) {
	if len(p.blinded) != len(p.plain) {
		return nil, 0, fmt.Errorf("%d functions plain, %d blinded", len(p.plain), len(p.blinded))
	}
	plain, blinded := slices.Clone(p.plain[f].Insns), p.blinded[f]
	for slot := range min(len(plain), len(blinded.Insns)) {
		if isFunction(plain[slot]) {
			// Its function is somewhere else now.
			copy(plain[slot:slot+2], blinded.Insns[slot:])
		}
	}
	for slot := range plain {
		if plain[slot].Op == abi.OpTailCall {
			plain[slot].Imm = 0 // programs to be blinded have no direct ones
		}
	}
	numbers, err := drawnByCode(blinded.Jited)
	if err != nil {
		return nil, 0, err
	}
	hidden, err := Rewrite(&bpf.Program{Insns: plain}, list(numbers))
	if err != nil {
		return nil, 0, fmt.Errorf("with the %d numbers of the kernel's code: %w", len(numbers), err)
	}
	if got := drawn(hidden.Insns); !slices.Equal(numbers, got) {
		return nil, 0, fmt.Errorf("%d numbers in the kernel's code, %d were used", len(numbers), len(got))
	}
	if len(p.plain) == 1 {
		if !slices.Equal(blinded.Insns, hidden.Insns) {
			return nil, 0, fmt.Errorf("instructions (-kernel +got):\n%s", cmp.Diff(blinded.Insns, hidden.Insns))
		}
	} else if !slices.Equal(blinded.Insns, plain) {
		return nil, 0, errors.New("translated in another way the second time")
	}
	blinded.Insns = hidden.Insns
	for slot := range blinded.Insns {
		if in := &blinded.Insns[slot]; isFunction(*in) {
			in.Regs = abi.Registers(in.Dst(), abi.Imm64Value) // to the JIT, an address
		}
	}
	code, err := oracle.Compile(k, &blinded, p.blinded)
	if err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(code.Bytes, blinded.Jited) {
		at := 0
		for at < min(len(code.Bytes), len(blinded.Jited)) && code.Bytes[at] == blinded.Jited[at] {
			at++
		}
		return nil, 0, fmt.Errorf("code of %d bytes, the kernel's has %d; they differ at %d, slot %d", len(code.Bytes), len(blinded.Jited), at, code.Slot(uint32(at)))
	}
	return hidden.Insns, len(numbers), nil
}

// isFunction reports whether an ldimm64 is the address of a function.
func isFunction(in bpf.Insn) bool { return in.Op == abi.OpLdImm64 && in.Src() == abi.Imm64Func }

// drawnByCode returns the random numbers of machine code: b of each
// "mov r10, a; xor r10, b", with 32 or 64 bits. r10 is AX.
func drawnByCode(code []byte) (numbers []uint32, err error) {
	var last x86asm.Inst
	for at := 0; at < len(code); {
		inst, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			return nil, fmt.Errorf("offset %d: % x: %w", at, code[at:min(at+15, len(code))], err)
		}
		at += inst.Len
		imm, ok := inst.Args[1].(x86asm.Imm)
		if inst.Op == x86asm.XOR && ok && isAX(inst.Args[0]) && loadsAX(last) {
			numbers = append(numbers, uint32(imm))
		}
		last = inst
	}
	return numbers, nil
}

func isAX(a x86asm.Arg) bool { return a == x86asm.R10 || a == x86asm.R10L }

// loadsAX reports whether an instruction is mov r10, imm, or xor r10d, r10d:
// the kernel writes 0 like that.
func loadsAX(inst x86asm.Inst) bool {
	_, constant := inst.Args[1].(x86asm.Imm)
	return isAX(inst.Args[0]) && (inst.Op == x86asm.MOV && constant || inst.Op == x86asm.XOR && isAX(inst.Args[1]))
}
