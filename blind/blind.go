package blind

import (
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
// translated program; it is not changed. A source program must have passed
// bpf.Check. A translated one that wouldn't pass is refused, or becomes one that
// wouldn't either, which jit.Compile sees. Time goes with the number of slots.
// The memory that r has is used again.
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
	n := len(p.Insns)
	if n > math.MaxInt32/upperLen {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, too many to blind", n)}
	}
	w := walks.Get().(*walk)
	defer func() {
		w.out, w.flags, w.origin, w.index, w.job = nil, nil, nil, nil, blockJob{}
		walks.Put(w)
	}()
	if err := w.source.start(rand); err != nil {
		return err
	}
	np := &r.Program
	w.out, w.flags, w.origin = np.Insns[:0], np.Flags[:0], np.Origin[:0]
	w.reserve(0, n)
	w.index = slices.Grow(r.Index[:0], n+1)[:n+1]
	w.jumps = w.jumps[:0]
	w.constants = 0
	w.index[0] = 0
	for start := 0; start < n; {
		end := min(start+block, n)
		if end < n && end-start > 1 && p.Insns[end-1].Op == abi.OpLdImm64 {
			end-- // halves of a constant stay together
		}
		w.reserve(int(w.index[start])+block*upperLen, n)
		if err := w.rewrite(p, start, end); err != nil {
			return err
		}
		start = end
	}
	length := w.index[n]
	np.Insns, np.Flags, np.Origin = w.out[:length], w.flags[:length], w.origin[:length]
	r.Index, r.Constants = w.index, w.constants
	return bpf.Mend(np, p, r.Index, w.jumps)
}

// walk goes over a program block by block. What a slot is can't be foreseen,
// so its loops have no branch that depends on it: they list the slots that
// something is to be done about, and other loops go over the lists.
type walk struct {
	source  source
	choices *choiceTable
	// The result.
	out       []bpf.Insn
	flags     []bpf.Flag
	origin    []int32
	index     []int32
	constants int
	// jumps are the slots that may have a distance.
	jumps []int32
	lists
	job blockJob
}

// lists are of a block: the rule of each slot, the slots with a constant to
// hide, and those about which something else is to be done.
type lists struct {
	rules         [block]uint8
	hidden, other [block]uint8
}

var walks = sync.Pool{New: func() any { return &walk{choices: &choices} }}

// block is how many slots are rewritten at a time: as many as a byte counts.
const block = 256

// reserve sees to it that there is room for n slots. If there isn't, it makes
// room for as many as are likely, of a program of so many slots.
func (w *walk) reserve(n, slots int) {
	if n > 0 && n <= len(w.out) {
		return
	}
	if n > min(cap(w.out), cap(w.flags), cap(w.origin)) {
		n = max(n, 2*slots, 2*len(w.out))
	}
	w.out, w.flags, w.origin = grow(w.out, n), grow(w.flags, n), grow(w.origin, n)
	n = min(len(w.out), len(w.flags), len(w.origin))
	w.out, w.flags, w.origin = w.out[:n], w.flags[:n], w.origin[:n]
}

// grow returns s with its whole capacity, and that is n or more.
func grow[E any](s []E, n int) []E {
	s = slices.Grow(s, max(n-len(s), 0))
	return s[:cap(s)]
}

// Of programs that have none.
var (
	noFlags [block]bpf.Flag
	counted = func() (list [block]int32) {
		for i := range list {
			list[i] = int32(i)
		}
		return list
	}()
)

// rewrite rewrites the slots from start up to end, at most a block. Distances
// stay as they are.
func (w *walk) rewrite(p *bpf.Program, start, end int) error {
	insns, flags := p.Insns[start:end], noFlags[:end-start]
	if p.Flags != nil {
		flags = p.Flags[start:end]
	}
	origin, from := counted[:end-start], int32(start)
	if p.Origin != nil {
		origin, from = p.Origin[start:end], 0
	}
	index := w.index[start : end+1]
	hidden, other := w.layOut(insns, flags, origin, from, index)
	numbers, err := w.source.take(len(hidden))
	if err != nil {
		return err
	}
	w.constants += len(hidden)
	if w.hide(insns, hidden, numbers, index) != 0 {
		return unchecked(p, start)
	}
	jumps := len(w.jumps)
	w.jumps = slices.Grow(w.jumps, len(other)+1)[:jumps+len(other)+1]
	for _, i := range other {
		in := &insns[i]
		switch w.rules[i] {
		case upperHalf:
			if int(i)+1 == len(insns) || !halves(in, &insns[i+1]) {
				return unchecked(p, start+int(i))
			}
			w.hidePair(in, &insns[i+1], int(index[i]))
		case zero:
			if in.Off != 0 {
				return unchecked(p, start+int(i))
			}
			w.out[index[i]] = bpf.Insn{Op: xorReg, Regs: abi.Registers(in.Dst(), in.Dst())}
		default:
			w.jumps[jumps] = int32(start) + int32(i)
			if choices.distance[in.Op]&choices.distanceRegs[in.Regs] != 0 {
				jumps++
			}
		}
	}
	w.jumps = w.jumps[:jumps]
	return nil
}

// halves tells whether two slots are a 64-bit constant, whose reserved fields
// are 0.
func halves(lo, hi *bpf.Insn) bool { return lo.Off == 0 && *hi == bpf.Insn{Imm: hi.Imm} }

// unchecked is the error about a slot that is no instruction, and would become
// one.
func unchecked(p *bpf.Program, slot int) error {
	if err := bpf.Check(p, bpf.Translated); err != nil {
		return err
	}
	return &bpf.Error{Slot: slot, Insn: p.Insns[slot], Reason: "BUG: is not well-formed"}
}

// layOutGeneric chooses the rule of each slot and fills in the index, whose
// first element is set. It lists the slots with a constant to hide, and those
// that are left for something else.
func (w *walk) layOutGeneric(insns []bpf.Insn, flags []bpf.Flag, index []int32) (hidden, other []uint8) {
	c, at := w.choices, index[0]
	h, o := 0, 0
	for i := range insns {
		in := &insns[i]
		key := uint32(in.Op)
		if in.Imm == 0 {
			key += zeroKey
		}
		// The second half of a constant does as the first.
		first := i - int(c.back[in.Op])
		regs := uint32(insns[first].Regs)
		n := c.rule[key] & c.usable[c.row[key]+regs] & (uint8(flags[first]&bpf.Inserted) - 1)
		w.rules[i] = n
		w.hidden[h], w.other[o] = uint8(i), uint8(i)
		h += int(c.hides[n])
		o += int(c.other[key])
		index[i] = at
		at += int32(c.slots[n])
	}
	index[len(insns)] = at
	return w.hidden[:h], w.other[:o]
}

// copyGeneric puts every instruction where it is in the new program.
func (w *walk) copyGeneric(insns []bpf.Insn, flags []bpf.Flag, origin []int32, from int32, index []int32) {
	for i := range insns {
		at := index[i+1] - 1
		w.out[at], w.flags[at], w.origin[at] = insns[i], flags[i], from+origin[i]
	}
}

// hideGeneric hides the constants of the listed slots, of each half of a 64-bit
// constant as if the half stood for itself. It returns 0, unless there is an off
// that is reserved and would be none in what the slot becomes.
func (w *walk) hideGeneric(insns []bpf.Insn, list []uint8, numbers []uint32, index []int32) (reserved int16) {
	numbers = numbers[:len(list)]
	out := w.out
	flags, origin := w.flags[:len(out)], w.origin[:len(out)]
	for k, i := range list {
		t := &rules[w.rules[i]]
		at := int(uint32(index[i]))
		own := at + int(t.own)
		r := uint64(numbers[k]) << 32
		set(&out[at], uint64(t.mov)|r^uint64(uint32(insns[i].Imm))<<32)
		set(&out[at+1], uint64(t.xor)|r)
		o := &out[own]
		reserved |= o.Off & t.reserved
		o.Op, o.Regs, o.Imm = t.op, o.Regs&15|abi.AX<<4, 0
		flags[at], flags[at+1] = bpf.Inserted, bpf.Inserted
		origin[at], origin[at+1] = origin[own], origin[own]
	}
	return reserved
}

// hidePair hides a 64-bit constant. Its random numbers are where hide has
// left them.
func (w *walk) hidePair(lo, hi *bpf.Insn, at int) {
	out := (*[upperLen + hiddenLen]bpf.Insn)(w.out[at:])
	own := abi.Registers(lo.Dst(), abi.AX)
	r0, r1 := out[1].Imm, out[5].Imm
	out[0] = bpf.Insn{Op: mov64, Regs: abi.AX, Imm: r0 ^ hi.Imm}
	out[2] = bpf.Insn{Op: lsh64, Regs: abi.AX, Imm: 32}
	out[3] = bpf.Insn{Op: movReg, Regs: own}
	out[4] = bpf.Insn{Op: mov32, Regs: abi.AX, Imm: r1 ^ lo.Imm}
	out[6] = bpf.Insn{Op: orReg, Regs: own}
	w.flags[at+2], w.origin[at+2] = bpf.Inserted, w.origin[at]
}
