package blind

import (
	"io"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// Result is a program whose constants are hidden.
type Result struct {
	Program *bpf.Program
	// Index tells where each slot of the old program went: what slot i became
	// is Index[i] up to, not including, Index[i+1], and a jump to slot i leads
	// to Index[i]. Index[n] is the new length.
	Index []int32
	// Constants is the number of slots that had a constant and don't any
	// more. A 64-bit constant counts twice.
	Constants int
}

// Rewrite returns p with its constants hidden. It is Constants for those who
// need the program only.
func Rewrite(p *bpf.Program, rand io.Reader) (*bpf.Program, error) {
	r, err := Constants(p, rand)
	if err != nil {
		return nil, err
	}
	return r.Program, nil
}

// Constants hides the constants of p, which is a source program as lower.Lower
// left it, with all its functions, or one function of a translated program.
// It must have passed bpf.Check and is not changed. Time goes with the number
// of slots.
//
// With R a new random number and AX the internal register:
//
//	mov32, mov64 dst, 0          xor64 dst, dst
//	ALU dst, imm                 mov AX, R^imm;   xor AX, R;   op dst, AX
//	jump if dst ? imm            mov AX, R^imm;   xor AX, R;   jump if dst ? AX
//	store imm                    mov64 AX, R^imm; xor64 AX, R; store AX
//	ldimm64 dst, first slot      mov64 AX, R^hi;  xor64 AX, R; lsh64 AX, 32; mov64 dst, AX
//	ldimm64 dst, second slot     mov32 AX, R^lo;  xor32 AX, R; or64 dst, AX
//
// where mov and xor are of the width of the instruction. The package comment
// says what is not hidden. What is rewritten uses AX or has no constant, so
// rewriting the result again changes nothing.
//
// Every slot that is rewritten, but for a move of 0, takes its own 4 bytes
// from rand, little-endian, in the order of the slots; no more is read. If
// rand is nil, they come from ChaCha8 with a key from the system.
//
// The error is rand's, or a *bpf.Error that wraps bpf.ErrRange and names the
// jump of p whose distance no longer fits its field: 16 bits, or 32 in gotol,
// calls and address constants.
func Constants(p *bpf.Program, rand io.Reader) (*Result, error) {
	w := walks.Get().(*walk)
	defer walks.Put(w)
	index := w.layOut(p)
	if w.constants == 0 {
		np, index, err := bpf.Apply(p, nil)
		return &Result{Program: np, Index: index}, err
	}
	if err := w.source.start(rand, w.numbers); err != nil {
		return nil, err
	}
	insns := make([]bpf.Insn, index[len(p.Insns)])
	if err := w.rewrite(insns, index, p.Insns); err != nil {
		return nil, err
	}
	np, err := bpf.Expand(p, index, insns)
	if err != nil {
		return nil, err
	}
	return &Result{np, index, w.constants}, nil
}

// walk holds the scratch memory of a walk over a program.
type walk struct {
	kinds     []kind // of the slots
	constants int    // slots to rewrite
	numbers   int    // random numbers that they take
	source    source
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// layOut decides what becomes of each slot, and returns the index of the new
// program.
func (w *walk) layOut(p *bpf.Program) []int32 {
	n := len(p.Insns)
	w.kinds = slices.Grow(w.kinds[:0], n)[:n]
	w.constants, w.numbers = 0, 0
	index := make([]int32, n+1)
	at := int32(0)
	for i := 0; i < n; i++ {
		in := p.Insns[i]
		r := &rules[in.Op]
		k := r.kind
		if k != keep {
			switch {
			case p.Flag(i)&bpf.Inserted != 0, in.Dst() == abi.AX, in.Src() == abi.AX, r.some && !applies(in):
				k = keep
			case r.move && in.Imm == 0:
				k = zero
				w.constants++
			default:
				w.constants++
				w.numbers++
			}
		}
		index[i] = at
		w.kinds[i] = k
		at += sizes[k]
		if in.Op == abi.OpLdImm64 && i+1 < n {
			// Both halves, or neither.
			i++
			if k == upper {
				k = lower
				w.constants++
				w.numbers++
			}
			index[i] = at
			w.kinds[i] = k
			at += sizes[k]
		}
	}
	index[n] = at
	return index
}

// rewrite fills the new program. Distances stay as they are.
func (w *walk) rewrite(out []bpf.Insn, index []int32, insns []bpf.Insn) error {
	s := &w.source
	for i, in := range insns {
		at := int(index[i])
		k := w.kinds[i]
		if k == keep {
			out[at] = in
			continue
		}
		if k == zero {
			out[at] = bpf.Insn{Op: xorReg, Regs: abi.Registers(in.Dst(), in.Dst())}
			continue
		}
		if len(s.words) == 0 {
			if err := s.draw(); err != nil {
				return err
			}
		}
		r := int32(s.words[0])
		s.words = s.words[1:]
		rule := &rules[in.Op]
		o := out[at : at+3]
		switch k {
		case hidden:
			o[0] = bpf.Insn{Op: rule.mov, Regs: abi.AX, Imm: r ^ in.Imm}
			o[1] = bpf.Insn{Op: rule.xor, Regs: abi.AX, Imm: r}
			o[2] = bpf.Insn{Op: rule.own, Regs: abi.Registers(in.Dst(), abi.AX), Off: in.Off}
		case upper:
			o[0] = bpf.Insn{Op: rule.mov, Regs: abi.AX, Imm: r ^ insns[i+1].Imm}
			o[1] = bpf.Insn{Op: rule.xor, Regs: abi.AX, Imm: r}
			o[2] = bpf.Insn{Op: lsh64, Regs: abi.AX, Imm: 32}
			out[at+3] = bpf.Insn{Op: rule.own, Regs: abi.Registers(in.Dst(), abi.AX)}
		case lower:
			first := insns[i-1]
			o[0] = bpf.Insn{Op: mov32, Regs: abi.AX, Imm: r ^ first.Imm}
			o[1] = bpf.Insn{Op: xor32, Regs: abi.AX, Imm: r}
			o[2] = bpf.Insn{Op: orReg, Regs: abi.Registers(first.Dst(), abi.AX)}
		}
	}
	return nil
}
