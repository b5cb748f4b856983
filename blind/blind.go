package blind

import (
	"io"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// Rewrite returns p with its constants hidden; see Result.Rewrite.
func Rewrite(p *bpf.Program, rand io.Reader) (*bpf.Program, error) {
	r := new(Result)
	if err := r.Rewrite(p, rand); err != nil {
		return nil, err
	}
	return &r.Program, nil
}

// Result is a program whose constants are hidden.
type Result struct {
	Program bpf.Program
	// Index tells where each slot of the old program went: slot i became
	// Index[i] up to, not including, Index[i+1], of which the last is the
	// instruction itself. A jump to slot i leads to Index[i].
	Index []int32
	// Constants is how many constants are hidden, which is how many random
	// numbers were taken. A 64-bit constant is two.
	Constants int
}

// Rewrite sets r to p with its constants hidden. p is a source program as
// lower.Lower left it, with all its functions, or one function of a
// translated program; it must have passed bpf.Check, and is not changed. Time
// goes with the number of slots. The memory that r has is used again.
//
// With R a new random number and AX the internal register:
//
//	mov32, mov64 dst, 0        xor64 dst, dst
//	ALU dst, imm               mov AX, R^imm;   xor AX, R;   op dst, AX
//	if dst ? imm goto          mov AX, R^imm;   xor AX, R;   if dst ? AX goto
//	store imm                  mov64 AX, R^imm; xor64 AX, R; store AX
//	ldimm64 dst, upper half    mov64 AX, R^imm; xor64 AX, R; lsh64 AX, 32; mov64 dst, AX
//	             lower half    mov32 AX, R^imm; xor32 AX, R; or64 dst, AX
//
// where mov and xor are of the width of the instruction. The package comment
// says what is not hidden. What comes out uses AX or has no constant, so
// rewriting it again changes nothing.
//
// Each R is 4 bytes of rand, little-endian, in the order of the new program;
// no more is read. If rand is nil, they come from ChaCha8 with a key from the
// system.
//
// The error is rand's, or a *bpf.Error that wraps bpf.ErrRange and names the
// jump of p whose distance no longer fits its field: 16 bits, or 32 in gotol,
// calls and address constants. Of r only Index and Constants are of use then.
func (r *Result) Rewrite(p *bpf.Program, rand io.Reader) error {
	w := walks.Get().(*walk)
	defer walks.Put(w)
	n := len(p.Insns)
	w.rules = slices.Grow(w.rules[:0], n)[:n]
	r.Index = slices.Grow(r.Index[:0], n+1)[:n+1]
	total := layOut(r.Index[:n], w.rules, p.Insns, p.Flags)
	r.Index[n] = int32(total.slots())
	r.Constants = total.numbers()
	if err := w.source.start(rand, total.numbers()); err != nil {
		return err
	}
	insns := slices.Grow(r.Program.Insns[:0], total.slots()+hiddenLen)[:total.slots()+hiddenLen]
	if err := w.rewrite(insns, r.Index, p.Insns); err != nil {
		return err
	}
	r.Program.Insns = insns[:total.slots()]
	return bpf.Expand(&r.Program, p, r.Index)
}

// walk holds the scratch memory of a walk over a program.
type walk struct {
	rules  []uint8 // of the slots
	source source
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// layOut chooses the rule of each slot and fills in the index. Where the
// constants are can't be foreseen, so the loop has no branch for the usual
// ones.
func layOut(index []int32, list []uint8, insns []bpf.Insn, flags []bpf.Flag) (at step) {
	index, list = index[:len(insns)], list[:len(insns)]
	for i := 0; i < len(insns); i++ {
		in := &insns[i]
		var isZero uint8
		if in.Imm == 0 {
			isZero = 1
		}
		n := numbers[isZero&1][in.Op] & usable[in.Regs]
		trusted := flags != nil && flags[i]&bpf.Inserted != 0
		if trusted {
			n = keep
		}
		if in.Op == abi.OpLdImm64 && i+1 < len(insns) {
			// One of its slots is upperHalf, the other lowerHalf, or both are kept.
			n, second, size, both := uint8(upperHalf), uint8(lowerHalf), int32(upperLen), pairSlots
			if trusted || !hiddenPair[in.Regs] {
				n, second, size, both = keep, keep, 1, 2*oneSlot
			}
			index[i], list[i] = int32(at), n
			i++
			index[i], list[i] = int32(at)+size, second
			at += both
			continue
		}
		if n == zeros {
			n += in.Dst()
		}
		index[i], list[i] = int32(at), n
		at += rules[n].step
	}
	return at
}

// rewrite fills out, which has hiddenLen slots more than the new program.
// Distances stay as they are.
func (w *walk) rewrite(out []bpf.Insn, index []int32, insns []bpf.Insn) error {
	s := &w.source
	for i := 0; i < len(insns); {
		if err := s.fill(); err != nil {
			return err
		}
		end := min(i+block, len(insns))
		if w.rules[end-1] == upperHalf {
			end++ // with the other half
		}
		s.at += rewriteBlock(out[index[i]:], insns[i:end], w.rules[i:end], &s.buffer, s.at)
		i = end
	}
	return nil
}

// rewriteBlock rewrites a part of a program that tears no 64-bit constant
// apart, and returns how many of the random numbers, the first of which is
// drawn, it took. The usual rules write three slots, and the next slot
// overwrites what was too much, so that the loop need not branch.
func rewriteBlock(out, insns []bpf.Insn, list []uint8, random *[2 * block]uint32, drawn int) int {
	list = list[:len(insns)]
	at := step(drawn) << 32
	for i := 0; i < len(insns); i++ {
		r := uint64(random[at>>32%(2*block)]) << 32
		o := (*[hiddenLen]bpf.Insn)(out[uint32(at):])
		if list[i] == upperHalf {
			p := (*[pairLen]bpf.Insn)(out[uint32(at):])
			at += 1 << 32
			rewritePair(p, insns[i], insns[i+1], int32(r>>32), int32(random[at>>32%(2*block)]))
			i++
			at += 1<<32 | pairLen
			continue
		}
		in, t := word(&insns[i]), &rules[list[i]]
		set(&o[0], uint64(t.mov)|in>>32<<32^r)
		set(&o[1], uint64(t.xor)|r)
		set(&o[t.step&2], in&t.mask|t.own)
		at += t.step
	}
	return int(at>>32) - drawn
}

// rewritePair rewrites an ldimm64. lo and hi are its two slots.
func rewritePair(out *[pairLen]bpf.Insn, lo, hi bpf.Insn, r0, r1 int32) {
	own := abi.Registers(lo.Dst(), abi.AX)
	out[0] = bpf.Insn{Op: mov64, Regs: abi.AX, Imm: r0 ^ hi.Imm}
	out[1] = bpf.Insn{Op: xor64, Regs: abi.AX, Imm: r0}
	out[2] = bpf.Insn{Op: lsh64, Regs: abi.AX, Imm: 32}
	out[3] = bpf.Insn{Op: movReg, Regs: own}
	out[4] = bpf.Insn{Op: mov32, Regs: abi.AX, Imm: r1 ^ lo.Imm}
	out[5] = bpf.Insn{Op: xor32, Regs: abi.AX, Imm: r1}
	out[6] = bpf.Insn{Op: orReg, Regs: own}
}
