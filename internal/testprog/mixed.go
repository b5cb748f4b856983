package testprog

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
)

// Mixed makes a program of exactly n slots, at least 2, with the opcode
// frequencies of real programs, as program of a seed. It is a valid Source
// program to be compiled; running it makes no sense. What it has in common
// with real programs besides opcodes:
//
//   - jumps: the median goes over 37 slots, 90 % over at most 704, the longest
//     over 8,624, and 12 % go back
//   - immediates: 83 % of those of arithmetic fit in 8 bits
//   - a third of all memory accesses go through R10
//
// Compiled as one function, a program of more than 100,000 slots takes 17
// passes, padding included, and one in some dozens doesn't settle at all; that
// depends on the seed alone.
func Mixed(seed uint64, n int) Program {
	m := &mixed{r: Rand(seed, uint64(n)), out: make([]abi.Insn, 0, n), second: make([]bool, n+1)}
	m.weigh()
	m.fill(n)
	for slot := range m.out {
		m.aim(slot)
	}
	return Program{Name: fmt.Sprintf("mixed seed=%d n=%d", seed, n), Insns: m.out}
}

type mixed struct {
	r      *rand.Rand
	sums   []int // of the frequencies
	out    []abi.Insn
	second []bool // of ldimm64: no jump goes there
	funcs  []int  // first slots of functions
}

func (m *mixed) weigh() {
	sum := 0
	for _, f := range frequencies {
		sum += f.count
		m.sums = append(m.sums, sum)
	}
}

// fill makes the instructions, without distances. Large programs get a few
// functions, so that there is something to call.
func (m *mixed) fill(n int) {
	m.funcs = []int{0}
	next := n
	if n >= 2000 {
		next = n / 2
	}
	for len(m.out) < n {
		if left := n - len(m.out); left == 1 || len(m.out) == next-1 {
			m.out = append(m.out, abi.Insn{Op: abi.OpExit})
			if left > 1 {
				m.funcs = append(m.funcs, len(m.out))
				next = len(m.out) + max((n-len(m.out))/2, 500)
			}
			continue
		}
		f := frequencies[sort.SearchInts(m.sums, m.r.IntN(m.sums[len(m.sums)-1])+1)]
		in := m.insn(f)
		room := min(n, next) - len(m.out)
		switch {
		case f.src == abi.CallLocal && n < 2000:
			// There is nothing to call.
		case in.Op != abi.OpLdImm64:
			m.out = append(m.out, in)
		case room > 2:
			m.out = append(m.out, in, abi.Insn{Imm: int32(m.r.Uint32())})
			m.second[len(m.out)-1] = true
			if chance(m.r, 70) { // most are addresses of maps
				m.out[len(m.out)-1].Imm = int32(0x8881 | m.r.Uint32()&0xf | 0xffff0000)
			}
		}
	}
}

// insn makes an instruction of a row.
func (m *mixed) insn(f frequency) abi.Insn {
	dst, src := uint8(m.r.IntN(10)), uint8(m.r.IntN(10))
	in := insn(f.op, dst, src, 0, f.imm)
	switch class := f.op & abi.ClassMask; class {
	case abi.ClassALU, abi.ClassALU64:
		switch {
		case f.imm != 0, f.op&abi.OpMask == 0x80: // byte swaps, neg
			in.Regs = abi.Registers(dst, 0)
		case f.op&abi.SourceX == 0:
			in = insn(f.op, dst, 0, 0, m.immediate(f.op))
		}
	case abi.ClassJMP, abi.ClassJMP32:
		switch {
		case f.op == abi.OpCall:
			in = insn(f.op, 0, f.src, 0, pick[int32](m.r, 1, 1, 1, 2, 3, 5, 6, 7, 8, 14, 25, 26, 51, 112))
		case f.op == abi.OpExit, f.op == abi.OpJa:
			in.Regs = 0
		case f.op&abi.SourceX == 0:
			in = insn(f.op, dst, 0, 0, m.immediate(f.op))
		}
	case abi.ClassLD:
		in = insn(f.op, dst, 0, 0, int32(m.r.Uint32()))
	case abi.ClassLDX:
		src, off := m.address(f.op, src)
		in = insn(f.op, dst, src, off, 0)
	case abi.ClassST, abi.ClassSTX:
		dst, off := m.address(f.op, dst)
		in = insn(f.op, dst, src, off, f.imm)
	}
	return in
}

// immediate chooses a constant for an operation.
func (m *mixed) immediate(op uint8) int32 {
	class := op & abi.ClassMask
	if kind := op & abi.OpMask; class == abi.ClassALU || class == abi.ClassALU64 {
		switch kind {
		case 0x60, 0x70, 0xc0: // shifts
			return int32(m.r.IntN(pick(m.r, 8, 32)))
		case 0x30, 0x90: // division, remainder
			return int32(between(m.r, 1, 1000))
		}
	}
	if chance(m.r, 83) {
		return int32(int8(m.r.Uint32()))
	}
	return int32(m.r.Uint32()) >> m.r.IntN(24)
}

// address chooses base and offset of an access.
func (m *mixed) address(op, base uint8) (uint8, int16) {
	size := abi.AccessSize(op)
	if chance(m.r, 33) {
		return abi.R10, int16(-size * between(m.r, 1, abi.FrameBytes/size))
	}
	return base, int16(size * m.r.IntN(48))
}

// aim sets the distance of a jump or call.
func (m *mixed) aim(slot int) {
	in := &m.out[slot]
	if m.second[slot] {
		return
	}
	k := sort.SearchInts(m.funcs, slot+1) // functions from here on
	switch class := in.Op & abi.ClassMask; {
	case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
		// Only the next function is called: the calls must not nest deeply.
		if k == len(m.funcs) || k >= abi.MaxFrames {
			in.Regs, in.Imm = 0, 1
			return
		}
		in.Imm = int32(m.funcs[k] - slot - 1)
	case class != abi.ClassJMP && class != abi.ClassJMP32, in.Op == abi.OpCall, in.Op == abi.OpExit:
	default:
		lo, hi := m.funcs[k-1], len(m.out)
		if k < len(m.funcs) {
			hi = m.funcs[k]
		}
		to := min(slot+1+m.distance(), hi-1)
		if chance(m.r, 12) {
			to = max(slot-m.distance(), lo)
		}
		if m.second[to] {
			to--
		}
		in.Off = int16(to - slot - 1)
	}
}

// distance chooses how far a jump goes: a log-normal distribution with the
// median and the ninth decile of real programs.
func (m *mixed) distance() int {
	const median, decile, longest = 37, 704, 8624
	const z = 1.2816 // 90 % of a normal distribution are below
	d := median * math.Exp(m.r.NormFloat64()*math.Log(decile/float64(median))/z)
	return max(1, min(int(d), longest))
}
