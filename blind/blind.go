package blind

import (
	"bytes"
	"fmt"
	"io"
	"math"
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
	if n > math.MaxInt32/upperLen {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, too many to blind", n)}
	}
	w.rules = slices.Grow(w.rules[:0], n)[:n]
	r.Index = slices.Grow(r.Index[:0], n+1)[:n+1]
	total := layOut(r.Index[:n], w.rules, p.Insns, p.Flags)
	r.Index[n] = int32(total.slots())
	r.Constants = total.numbers()
	if err := w.source.start(rand, total.numbers()); err != nil {
		return err
	}
	room := total.slots() + hiddenLen
	w.out = slices.Grow(r.Program.Insns[:0], room)[:room]
	r.Program.Insns = w.out[:total.slots()]
	w.done = 0
	err := bpf.Expand(&r.Program, p, r.Index, func(end int) error { return w.rewrite(end, r.Index, p.Insns) })
	w.out = nil
	return err
}

// walk holds the scratch memory of a walk over a program.
type walk struct {
	rules  []uint8 // of the slots
	source source
	// out has hiddenLen slots more than the new program.
	out []bpf.Insn
	// done slots are rewritten.
	done int
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// layOut chooses the rule of each slot and fills in the index. Where the
// constants are can't be foreseen, so the loop has no branch that depends on
// it.
func layOut(index []int32, list []uint8, insns []bpf.Insn, flags []bpf.Flag) (at step) {
	index, list = index[:len(insns)], list[:len(insns)]
	if len(flags) > 0 {
		flags = flags[:len(insns)]
	}
	before := uint8(keep)
	for i := range insns {
		in := &insns[i]
		var isZero uint8
		if in.Imm == 0 {
			isZero = 1
		}
		n := numbers[isZero&1][in.Op] & usable[in.Regs]
		if len(flags) > 0 && flags[i]&bpf.Inserted != 0 {
			n = keep
		}
		if in.Op == abi.OpLdImm64 && (!constant[in.Regs] || i+1 == len(insns) || insns[i+1].Op != 0) {
			n = keep
		}
		if in.Op == 0 {
			// The lower half does as the upper one.
			n = keep
			if before == upperHalf {
				n = lowerHalf
			}
		}
		before = n
		if n == zeros {
			n += in.Dst()
		}
		index[i], list[i] = int32(at), n
		at += rules[n].step
	}
	return at
}

// rewrite goes on as far as slot end, or one slot further where that is within
// a 64-bit constant. Distances stay as they are.
func (w *walk) rewrite(end int, index []int32, insns []bpf.Insn) error {
	s, i := &w.source, w.done
	for i < end {
		if err := s.fill(); err != nil {
			return err
		}
		run := w.rules[i:min(i+block, end)]
		if n := bytes.IndexByte(run, upperHalf); n >= 0 {
			run = run[:n]
		}
		s.at += rewriteRun(w.out[index[i]:], insns[i:i+len(run)], run, s.buffer[s.at:])
		i += len(run)
		if i < end && w.rules[i] == upperHalf {
			o := (*[pairLen]bpf.Insn)(w.out[index[i]:])
			rewritePair(o, insns[i], insns[i+1], int32(s.buffer[s.at]), int32(s.buffer[s.at+1]))
			s.at += 2
			i += 2
		}
	}
	w.done = i
	return nil
}

// rewriteRun rewrites a part of a program that has no 64-bit constants to
// hide, and returns how many random numbers it took. Three slots are written
// for each one, and the next slot overwrites what was too much, so that the
// loop has no branch that depends on where constants are.
func rewriteRun(out, insns []bpf.Insn, list []uint8, random []uint32) (taken int) {
	insns = insns[:len(list)]
	var at step
	for i, n := range list {
		r := uint64(random[at.numbers()]) << 32
		in, t, k := &insns[i], &rules[n], at.slots()
		imm := uint64(uint32(in.Imm)) << 32
		own := uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | imm
		_ = out[k+hiddenLen-1]
		set(&out[k], uint64(t.mov)|r^imm)
		set(&out[k+1], uint64(t.xor)|r)
		set(&out[k+int(t.step&2)], own&t.mask|t.own)
		at += t.step
	}
	return at.numbers()
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
