package blind

import (
	"fmt"
	"io"
	"math"
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
	w.rules = resize(w.rules, n)
	w.jumps = resize(w.jumps, n)
	w.pairs = resize(w.pairs, n)
	r.Index = resize(r.Index, n+1)
	total := w.layOut(r.Index[:n], p)
	r.Index[n] = int32(total.slots())
	r.Constants = total.numbers()
	if err := w.source.start(rand, total.numbers()); err != nil {
		return err
	}
	np := &r.Program
	room := total.slots() + upperLen
	np.Insns, np.Flags, np.Origin = resize(np.Insns, room), resize(np.Flags, room), resize(np.Origin, room)
	var at step
	for start := 0; start < n; start += block {
		if err := w.source.fill(); err != nil {
			return err
		}
		end := min(start+block, n)
		at += w.rewrite(np, p, start, end, at.slots())
	}
	w.rewritePairs(np, p, r.Index)
	np.Insns, np.Flags, np.Origin = np.Insns[:total.slots()], np.Flags[:total.slots()], np.Origin[:total.slots()]
	if p.Flags != nil {
		keepFlags(np.Flags, p.Flags, r.Index)
	}
	return bpf.Mend(np, p, r.Index, w.jumps)
}

// walk holds the scratch memory of a walk over a program.
type walk struct {
	rules []uint8 // of the slots
	// jumps are the slots with a distance, pairs the first slots of 64-bit
	// constants to hide.
	jumps, pairs []int32
	source       source
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// resize returns a slice of length n, in the memory of s if that is enough.
// What is in it is of no use.
func resize[E any](s []E, n int) []E {
	if n <= cap(s) {
		return s[:n]
	}
	return make([]E, n, n+n/4)
}

// layOut chooses the rule of each slot, fills in the index, and lists jumps
// and pairs. What a slot is can't be foreseen, so the loop has no branch that
// depends on it.
func (w *walk) layOut(index []int32, p *bpf.Program) (at step) {
	insns, flags := p.Insns, p.Flags
	index, list := index[:len(insns)], w.rules[:len(insns)]
	jumps, pairs := w.jumps[:len(insns)], w.pairs[:len(insns)]
	j, k := 0, 0
	for i := range insns {
		in := &insns[i]
		var isZero uint32
		if in.Imm == 0 {
			isZero = 1
		}
		key := uint32(in.Op) + isZero<<8
		// The second half of a constant does as the first.
		from := max(i-int(choices.back[in.Op]), 0)
		regs := uint32(insns[from].Regs)
		n := choices.number[key] & choices.usable[(choices.row[key]+regs)%uint32(len(choices.usable))]
		if len(flags) > 0 {
			n &= kept[flags[from]&bpf.Inserted]
		}
		index[i], list[i] = int32(at), n
		jumps[j], pairs[k] = int32(i), int32(i)
		if choices.jump[in.Op]&choices.jumpRegs[in.Regs] != 0 {
			j++
		}
		s := steps[n]
		k += int(s >> 2 & 1) // upperLen is the only one with this bit
		at += s
	}
	w.jumps, w.pairs = jumps[:j], pairs[:k]
	return at
}

// rewrite does what the rules say to the slots from start up to end. It
// leaves out halves of constants, and distances stay as they are.
//
// Three slots are written for each one, with room for a fourth, and the next
// slot overwrites what was too much, so that the loop has no branch that
// depends on where constants are.
func (w *walk) rewrite(np, p *bpf.Program, start, end, place int) (made step) {
	insns, list := p.Insns[start:end], w.rules[start:end]
	list = list[:len(insns)]
	out := np.Insns[place:]
	flags, origin := np.Flags[place:][:len(out)], np.Origin[place:][:len(out)]
	random := &w.source.buffer
	number := w.source.at
	for i := range insns {
		in, t := &insns[i], &rules[list[i]]
		r := uint64(random[uint(number+made.numbers())%uint(len(random))]) << 32
		imm := uint64(uint32(in.Imm)) << 32
		own := uint64(in.Op) | uint64(in.Regs)<<8 | uint64(uint16(in.Off))<<16 | imm
		from := uint64(start + i)
		if p.Origin != nil {
			from = uint64(p.Origin[start+i])
		}
		from |= from << 32

		k := made.slots()
		_ = out[k+upperLen-1]
		set(&out[k], uint64(t.mov)|r^imm)
		set(&out[k+1], uint64(t.xor)|r)
		set(&out[k+int(t.own)], own&t.mask|t.add|own&dstMask*uint64(t.twice))
		flags[k], flags[k+1], flags[k+2], flags[k+3] = bpf.Flag(t.flags), bpf.Flag(t.flags>>8), bpf.Flag(t.flags>>16), bpf.Flag(t.flags>>24)
		origin[k], origin[k+1] = int32(from), int32(from>>32)
		origin[k+2], origin[k+3] = int32(from), int32(from>>32)
		made += t.step
	}
	w.source.at += made.numbers()
	return made
}

// rewritePairs rewrites the 64-bit constants. Their random numbers are where
// rewrite has left them.
func (w *walk) rewritePairs(np, p *bpf.Program, index []int32) {
	for _, i := range w.pairs {
		lo, hi := &p.Insns[i], &p.Insns[i+1]
		out := (*[upperLen + hiddenLen]bpf.Insn)(np.Insns[index[i]:])
		own := abi.Registers(lo.Dst(), abi.AX)
		r0, r1 := out[1].Imm, out[5].Imm
		out[0] = bpf.Insn{Op: mov64, Regs: abi.AX, Imm: r0 ^ hi.Imm}
		out[1] = bpf.Insn{Op: xor64, Regs: abi.AX, Imm: r0}
		out[2] = bpf.Insn{Op: lsh64, Regs: abi.AX, Imm: 32}
		out[3] = bpf.Insn{Op: movReg, Regs: own}
		out[4] = bpf.Insn{Op: mov32, Regs: abi.AX, Imm: r1 ^ lo.Imm}
		out[5] = bpf.Insn{Op: xor32, Regs: abi.AX, Imm: r1}
		out[6] = bpf.Insn{Op: orReg, Regs: own}
	}
}

// keepFlags copies the marks of instructions to where they are now.
func keepFlags(now, old []bpf.Flag, index []int32) {
	for i, end := range index[1 : len(old)+1] {
		now[end-1] = old[i]
	}
}
