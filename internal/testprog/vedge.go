package testprog

import (
	"github.com/bpfjit/bpfjit/abi"
)

// lowReg are the registers that need no REX prefix in a 32-bit instruction.
var lowReg = []uint8{abi.R0, abi.R1, abi.R2, abi.R3, abi.R4, abi.R6}

// ofLength emits one instruction for which the kernel's JIT needs exactly n
// bytes: 0, or 2 to 7, or 10. It changes numbers only. low is a number that
// lies in one of lowReg.
func (f *vfunc) ofLength(n int, low uint8) {
	any64 := pick[uint8](f.r, 0x0f, 0x1f, 0x4f, 0x5f, 0xaf)
	switch n {
	case 0: // a move to itself
		f.emit(insn(opMov64X, low, low, 0, 0))
	case 2: // 31 /r and its like
		f.emit(insn(pick[uint8](f.r, 0x0c, 0x1c, 0x4c, 0x5c, opXor32X), low, low, 0, 0))
	case 3: // REX.W 01 /r and its like
		f.emit(insn(any64, f.scalarReg(), f.scalarReg(), 0, 0))
	case 4: // REX.W 83 /0 ib
		f.emit(insn(pick[uint8](f.r, 0x07, 0x17, 0x47, 0x57, 0xa7), f.scalarReg(), 0, 0, int32(between(f.r, -128, 127))))
	case 5: // B8+r id
		f.emit(insn(opMov32K, low, 0, 0, int32(between(f.r, 1, 1<<30))))
	case 6: // 83 /0 with an operand-size twin: two instructions of 3 bytes
		f.emit(insn(any64, low, low, 0, 0), insn(any64, f.scalarReg(), low, 0, 0))
	case 7: // REX.W C7 /0 id
		f.emit(insn(opMov64K, f.scalarReg(), 0, 0, int32(-between(f.r, 1, 1<<30))))
	case 10: // REX.W B8+r iq
		f.emit(insn(abi.OpLdImm64, f.scalarReg(), 0, 0, int32(f.r.Uint32())), abi.Insn{Imm: int32(between(f.r, 1, 1<<30))})
	default:
		panic("BUG: testprog: no instruction of that length")
	}
}

// lengths are what ofLength offers.
var lengths = []int{2, 3, 4, 5, 6, 7, 10}

// pad emits instructions of n bytes of machine code in all, n being 0 or more
// than 1.
func (f *vfunc) pad(n int, low uint8) {
	for n > 0 {
		if l := pick(f.r, lengths...); n == l || n >= l+2 {
			f.ofLength(l, low)
			n -= l
		}
	}
	if chance(f.r, 10) {
		f.ofLength(0, low)
	}
}

// lowNumber makes sure that a register of lowReg holds a number.
func (f *vfunc) lowNumber() (uint8, bool) {
	var regs []uint8
	for _, reg := range lowReg {
		if f.regs[reg].role == scalar {
			regs = append(regs, reg)
		}
	}
	if len(regs) > 0 {
		return pick(f.r, regs...), true
	}
	for _, reg := range lowReg {
		if f.regs[reg].role == unset {
			f.setScalar(reg)
			return reg, true
		}
	}
	return 0, false
}

// edge emits a jump over a chosen number of bytes, at the limits of short
// displacements: forward 123 | 124 and 127 | 128, backward 128 | 129.
func (f *vfunc) edge() {
	low, ok := f.lowNumber()
	if !ok {
		return
	}
	distance := between(f.r, 116, 132)
	if chance(f.r, 60) {
		distance = pick(f.r, 122, 123, 124, 125, 126, 127, 128, 129)
	}
	switch f.r.IntN(5) {
	case 0: // backward
		f.edgeLoop(distance, low)
	case 1: // forward, over an else of that length
		other, end := f.e.newLabel(), f.e.newLabel()
		f.branch(other)
		before := f.regs
		f.alu()
		f.always(end)
		f.e.place(other)
		then := f.regs
		f.regs = before
		f.pad(distance, low)
		f.e.place(end)
		f.regs = meet(then, f.regs)
	case 2: // two jumps to one place, one over the other
		end := f.e.newLabel()
		f.branch(end)
		n := between(f.r, 2, 40)
		f.pad(n, low)
		f.branch(end)
		f.pad(max(distance-n, 2), low)
		f.e.place(end)
	default:
		end := f.e.newLabel()
		f.branch(end)
		f.pad(distance, low)
		f.e.place(end)
	}
}

// edgeLoop emits a loop whose jump goes back about n bytes.
func (f *vfunc) edgeLoop(n int, low uint8) {
	var free []uint8
	for _, reg := range f.with(unset, scalar) {
		if reg != low {
			free = append(free, reg)
		}
	}
	if f.v.has&Loops == 0 || f.times > 16 || len(free) == 0 {
		return
	}
	c := pick(f.r, free...)
	f.startCount(c)
	head := f.e.here()
	f.times *= 2
	// What follows the padding takes 5 to 15 bytes.
	f.pad(n-between(f.r, 5, 15), low)
	f.count(c, 2, head)
	f.times /= 2
	f.set(c, scalar, 0)
}

// dense emits n instructions, many of them jumps forward to one another, so
// that the sizes of jumps depend on each other and take several passes. The
// numbers that are compared stay unknown to the verifier (see branch).
func (f *vfunc) dense(n int) {
	for len(f.with(scalar)) < 2 {
		f.setScalar(f.writable())
	}
	regs := f.with(scalar)
	f.r.Shuffle(len(regs), func(i, j int) { regs[i], regs[j] = regs[j], regs[i] })
	regs = regs[:between(f.r, 2, min(len(regs), 4))]
	for _, reg := range regs {
		f.unknown(reg)
	}
	// A register minus itself would be known.
	two := func() (a, b uint8) {
		i := f.r.IntN(len(regs))
		return regs[i], regs[(i+1+f.r.IntN(len(regs)-1))%len(regs)]
	}
	places := make([]label, n+1)
	for i := range places {
		places[i] = f.e.newLabel()
	}
	reach := pick(f.r, 4, 12, 40)
	for i := range n {
		f.e.place(places[i])
		switch {
		case chance(f.r, 45):
			form := pick(f.r, formsCond...)
			to := min(i+1+f.r.IntN(reach), n)
			a, b := two()
			f.jump(build(form, a, b, 0, constant(f.r)), places[to])
		case chance(f.r, 5):
			// A jump that leaves nothing behind it unreachable.
			f.always(places[i+1])
		case chance(f.r, 50):
			op := pick[uint8](f.r, opAdd64X, 0x1f, opXor64X)
			a, b := two()
			f.emit(insn(op, a, b, 0, 0))
		default:
			op := pick[uint8](f.r, opAdd64K, opSub64K, 0xa7)
			f.emit(insn(op, pick(f.r, regs...), 0, 0, constant(f.r)))
		}
	}
	f.e.place(places[n])
}
