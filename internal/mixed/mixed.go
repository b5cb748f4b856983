package mixed

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
)

// Mix is how often each instruction occurs in a program to be made.
type Mix struct {
	rows []row
	sums []int // of the counts
}

// Real returns the mix of real programs.
func Real() *Mix { return newMix(realPrograms) }

// Of returns the mix of given programs, which must have passed bpf.Check as
// source programs. What a made program could not have everywhere is left out:
// may_goto, callx, addresses of functions, load-acquire and store-release,
// packet loads. Without anything that is left, there is no mix: nil.
func Of(programs ...[]abi.Insn) *Mix {
	counts := make(map[kind]int)
	for _, insns := range programs {
		for slot := 0; slot < len(insns); slot++ {
			if k, ok := kindOf(insns[slot]); ok {
				counts[k]++
			}
			if insns[slot].Op == abi.OpLdImm64 {
				slot++
			}
		}
	}
	if len(counts) == 0 {
		return nil
	}
	var rows []row
	for k, n := range counts {
		rows = append(rows, row{k, n})
	}
	slices.SortFunc(rows, compare)
	return newMix(rows)
}

// Program makes a program of exactly n slots, at least 2, as program of a
// seed. It is a valid Source program to be compiled; running it makes no
// sense. What it has in common with real programs besides opcodes:
//
//   - jumps: the median goes over 37 slots, 90 % over at most 704, the longest
//     over 8,624, and 12 % go back
//   - immediates: 83 % of those of arithmetic fit in 8 bits
//   - a third of all memory accesses go through R10
//
// Compiled as one function, a program of more than 100,000 slots with the mix
// of real programs takes 17 passes, padding included, and one in some dozens
// doesn't settle at all; that depends on the seed alone.
func (m *Mix) Program(seed uint64, n int) []abi.Insn {
	p := &program{Mix: m, r: rand.New(rand.NewPCG(seed, uint64(n))), out: make([]abi.Insn, 0, n), second: make([]bool, n+1)}
	p.fill(n)
	for slot := range p.out {
		p.aim(slot)
	}
	return p.out
}

func newMix(rows []row) *Mix {
	m := &Mix{rows: rows}
	sum := 0
	for _, r := range rows {
		sum += r.count
		m.sums = append(m.sums, sum)
	}
	return m
}

// compare orders rows by falling counts, and then in any way that is always
// the same.
func compare(a, b row) int {
	return cmp.Or(b.count-a.count, int(a.op)-int(b.op), int(a.src)-int(b.src), int(a.off)-int(b.off), cmp.Compare(a.imm, b.imm))
}

// maxMisses is how many instructions that have no place are chosen in a row.
const maxMisses = 1000

const (
	opMov       = 0xb7 // of a constant
	opEnd       = 0xd0 // of ALU and ALU64: byte swaps
	opNeg       = 0x80
	opCallx     = 0x8d
	modeAtomic  = 0xc0
	atomicOrder = 0x100 // load-acquire, and store-release
)

// kindOf returns what a row tells of an instruction, and whether a made
// program can have such.
func kindOf(in abi.Insn) (k kind, ok bool) {
	k.op = in.Op
	switch class := in.Op & abi.ClassMask; class {
	case abi.ClassALU, abi.ClassALU64:
		k.off = in.Off
		if in.Op&abi.OpMask == opEnd {
			k.imm = in.Imm
		}
	case abi.ClassJMP, abi.ClassJMP32:
		if in.Op == abi.OpCall {
			k.src = in.Src()
		}
		return k, in.Op != abi.OpMayGoto && in.Op != opCallx
	case abi.ClassLD:
		return k, in.Op == abi.OpLdImm64 && in.Src() != abi.Imm64Func
	case abi.ClassSTX:
		if in.Op&abi.ModeMask == modeAtomic {
			k.imm = in.Imm
			return k, in.Imm&atomicOrder == 0
		}
	}
	return k, true
}

// program is a program in the making.
type program struct {
	*Mix
	r      *rand.Rand
	out    []abi.Insn
	second []bool // of ldimm64: no jump goes there
	funcs  []int  // first slots of functions
}

// fill makes the instructions, without distances. Large programs get a few
// functions, so that there is something to call.
func (p *program) fill(n int) {
	p.funcs = []int{0}
	next := n
	if n >= 2000 {
		next = n / 2
	}
	for misses := 0; len(p.out) < n; misses++ {
		if left := n - len(p.out); left == 1 || len(p.out) == next-1 {
			p.out = append(p.out, abi.Insn{Op: abi.OpExit})
			if left > 1 {
				p.funcs = append(p.funcs, len(p.out))
				next = len(p.out) + max((n-len(p.out))/2, 500)
			}
			continue
		}
		f := p.rows[sort.SearchInts(p.sums, p.r.IntN(p.sums[len(p.sums)-1])+1)]
		in := p.insn(f)
		room := min(n, next) - len(p.out)
		switch {
		case misses == maxMisses:
			p.out = append(p.out, abi.Insn{Op: opMov})
			misses = 0
		case f.src == abi.CallLocal && n < 2000:
			// There is nothing to call.
		case in.Op != abi.OpLdImm64:
			misses = 0
			p.out = append(p.out, in)
		case room > 2:
			misses = 0
			p.out = append(p.out, in, abi.Insn{Imm: int32(p.r.Uint32())})
			p.second[len(p.out)-1] = true
			if chance(p.r, 70) { // most are addresses of maps
				p.out[len(p.out)-1].Imm = int32(0x8881 | p.r.Uint32()&0xf | 0xffff0000)
			}
		}
	}
}

// insn makes an instruction of a row.
func (p *program) insn(f row) abi.Insn {
	dst, src := uint8(p.r.IntN(10)), uint8(p.r.IntN(10))
	in := insn(f.op, dst, src, 0, f.imm)
	switch class := f.op & abi.ClassMask; class {
	case abi.ClassALU, abi.ClassALU64:
		switch {
		case f.op&abi.OpMask == opEnd, f.op&abi.OpMask == opNeg:
			in.Regs = abi.Registers(dst, 0)
		case f.op&abi.SourceX == 0:
			in = insn(f.op, dst, 0, f.off, p.immediate(f.op))
		default:
			in.Off = f.off
		}
	case abi.ClassJMP, abi.ClassJMP32:
		switch {
		case f.op == abi.OpCall:
			in = insn(f.op, 0, f.src, 0, pick[int32](p.r, 1, 1, 1, 2, 3, 5, 6, 7, 8, 14, 25, 26, 51, 112))
		case f.op == abi.OpExit, f.op == abi.OpJa, f.op == abi.OpGotol:
			in.Regs = 0
		case f.op&abi.SourceX == 0:
			in = insn(f.op, dst, 0, 0, p.immediate(f.op))
		}
	case abi.ClassLD:
		in = insn(f.op, dst, 0, 0, int32(p.r.Uint32()))
	case abi.ClassLDX:
		src, off := p.address(f.op, src)
		in = insn(f.op, dst, src, off, 0)
	case abi.ClassST:
		dst, off := p.address(f.op, dst)
		in = insn(f.op, dst, 0, off, p.immediate(f.op))
	case abi.ClassSTX:
		dst, off := p.address(f.op, dst)
		in = insn(f.op, dst, src, off, f.imm)
	}
	return in
}

// immediate chooses a constant for an operation.
func (p *program) immediate(op uint8) int32 {
	class := op & abi.ClassMask
	if kind := op & abi.OpMask; class == abi.ClassALU || class == abi.ClassALU64 {
		switch kind {
		case 0x60, 0x70, 0xc0: // shifts
			return int32(p.r.IntN(pick(p.r, 8, 32)))
		case 0x30, 0x90: // division, remainder
			return int32(between(p.r, 1, 1000))
		}
	}
	if chance(p.r, 83) {
		return int32(int8(p.r.Uint32()))
	}
	return int32(p.r.Uint32()) >> p.r.IntN(24)
}

// address chooses base and offset of an access.
func (p *program) address(op, base uint8) (uint8, int16) {
	size := abi.AccessSize(op)
	if chance(p.r, 33) {
		return abi.R10, int16(-size * between(p.r, 1, abi.FrameBytes/size))
	}
	return base, int16(size * p.r.IntN(48))
}

// aim sets the distance of a jump or call.
func (p *program) aim(slot int) {
	in := &p.out[slot]
	if p.second[slot] {
		return
	}
	k := sort.SearchInts(p.funcs, slot+1) // functions from here on
	switch class := in.Op & abi.ClassMask; {
	case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
		// Only the next function is called: the calls must not nest deeply.
		if k == len(p.funcs) || k >= abi.MaxFrames {
			in.Regs, in.Imm = 0, 1
			return
		}
		in.Imm = int32(p.funcs[k] - slot - 1)
	case class != abi.ClassJMP && class != abi.ClassJMP32, in.Op == abi.OpCall, in.Op == abi.OpExit:
	default:
		lo, hi := p.funcs[k-1], len(p.out)
		if k < len(p.funcs) {
			hi = p.funcs[k]
		}
		to := min(slot+1+p.distance(), hi-1)
		if chance(p.r, 12) {
			to = max(slot-p.distance(), lo)
		}
		if p.second[to] {
			to--
		}
		if in.Op == abi.OpGotol {
			in.Imm = int32(to - slot - 1)
			return
		}
		in.Off = int16(to - slot - 1)
	}
}

// distance chooses how far a jump goes: a log-normal distribution with the
// median and the ninth decile of real programs.
func (p *program) distance() int {
	const median, decile, longest = 37, 704, 8624
	const z = 1.2816 // 90 % of a normal distribution are below
	d := median * math.Exp(p.r.NormFloat64()*math.Log(decile/float64(median))/z)
	return max(1, min(int(d), longest))
}

func insn(op uint8, dst, src uint8, off int16, imm int32) abi.Insn {
	return abi.Insn{Op: op, Regs: abi.Registers(dst, src), Off: off, Imm: imm}
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// chance is true in n of 100 cases.
func chance(r *rand.Rand, n int) bool { return r.IntN(100) < n }

// between returns a number from lo to hi, both included.
func between(r *rand.Rand, lo, hi int) int { return lo + r.IntN(hi-lo+1) }
