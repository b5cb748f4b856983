package blind

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
	"github.com/bpfjit/bpfjit/tables"
)

// spray makes a source program of constants that an attacker could have
// chosen: one instruction of each form whose constant is hidden, several
// times. It returns the constants, 32 bits each; those that the plain code is
// certain to show are marked true. Programs from the same r differ in their
// constants only.
func spray(r, numbers *rand.Rand) (p *bpf.Program, constants map[uint32]bool) {
	p, constants = &bpf.Program{}, map[uint32]bool{}
	constant := func(shown bool) int32 {
		// Never one that short instructions can hold, a small negative one
		// included.
		c := numbers.Uint32()&^0x00010000 | 0x40000100
		constants[c] = shown
		return int32(c)
	}
	var forms []tables.Form
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if form := &tables.Forms[f]; form.Source == tables.Allowed && form.Blind != tables.BlindNone && f != tables.FormLdSecond {
			forms = append(forms, f)
		}
	}
	for range 4 {
		for _, at := range r.Perm(len(forms)) {
			form := &tables.Forms[forms[at]]
			in := bpf.Insn{Op: form.Op, Regs: uint8(r.IntN(abi.R10)), Off: int16(form.Off.Value)}
			if form.Off.Use == tables.UseDisplacement {
				in.Off = 16
			}
			shown := true
			if form.Op&abi.ClassMask == abi.ClassST {
				shown = abi.AccessSize(form.Op) >= 4
			}
			in.Imm = constant(shown)
			p.Insns = append(p.Insns, in)
			if form.Op == abi.OpLdImm64 {
				p.Insns = append(p.Insns, bpf.Insn{Imm: constant(true)})
			}
		}
	}
	p.Insns = append(p.Insns, bpf.Insn{Op: abi.OpExit})
	return p, constants
}

// survivors returns which of the constants occur in the code, at any offset.
func survivors(code []byte, constants map[uint32]bool) map[uint32]bool {
	found := map[uint32]bool{}
	for i := 0; i+4 <= len(code); i++ {
		if c := binary.LittleEndian.Uint32(code[i:]); contains(constants, c) {
			found[c] = true
		}
	}
	return found
}

func contains(m map[uint32]bool, c uint32) bool { _, ok := m[c]; return ok }

// TestNoConstantSurvives compiles programs full of chosen constants, for the
// kernel and for the cage, plain and blinded. Plain code has them all; that
// makes the test worth something. Of blinded code, four bytes may look like
// one by chance, but not with other random numbers again; or since opcodes
// look like it, but then so does the code of other constants.
func TestNoConstantSurvives(t *testing.T) {
	seed := testprog.Seed(t)
	compilers := map[string]func(p *bpf.Program) (*jit.Code, error){
		"kernel": func(p *bpf.Program) (*jit.Code, error) {
			return jit.Compile(p, &jit.Linux618, &jit.Function{StackDepth: 16})
		},
		"cage": func(p *bpf.Program) (*jit.Code, error) { return jit.CompileCage(p, &jit.Cage) },
	}
	for name, compile := range compilers {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(20) {
				p, constants := spray(testprog.Rand(seed, i), testprog.Rand(seed, 100+i))
				others, _ := spray(testprog.Rand(seed, i), testprog.Rand(seed, 200+i))
				if err := bpf.Check(p, bpf.Source); err != nil {
					t.Fatal(err)
				}
				if name == "cage" {
					var err1, err2 error
					p, err1 = lower.Lower(p)
					others, err2 = lower.Lower(others)
					if err := errors.Join(err1, err2); err != nil {
						t.Fatal(err)
					}
				}
				plain, err := compile(p)
				if err != nil {
					t.Fatal(err)
				}
				there := survivors(plain.Bytes, constants)
				for c, shown := range constants {
					if shown && !there[c] {
						t.Errorf("program %d: plain code doesn't have %#x", i, c)
					}
				}
				hidden := func(p *bpf.Program) []byte {
					np, err := Rewrite(p, nil)
					if err != nil {
						t.Fatal(err)
					}
					code, err := compile(np)
					if err != nil {
						t.Fatal(err)
					}
					return code.Bytes
				}
				left := constants
				for range 2 {
					left = survivors(hidden(p), left)
				}
				for try := 0; try < 20 && len(left) > 0; try++ { // opcodes depend on signs
					for c := range survivors(hidden(others), left) {
						delete(left, c)
					}
				}
				for c := range left {
					t.Errorf("program %d: blinded code still has %#x", i, c)
				}
			}
		})
	}
}
