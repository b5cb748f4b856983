package testprog

import (
	"math/rand/v2"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// role is what a register holds, as the verifier sees it.
type role uint8

const (
	unset    role = iota // nothing that may be read
	scalar               // a number
	packet               // a pointer into the packet
	frame                // a pointer into the function's own frame
	window               // a pointer to a part of the caller's frame
	reserved             // a number that random code must leave alone
)

// value is the content of a register. off is where a pointer points: bytes
// from the start of the packet or the window, or from R10.
type value struct {
	role role
	off  int
}

// vcall is a call whose distance isn't known yet.
type vcall struct {
	slot   int
	callee *vfunc
}

// vfunc is a function of a verified program while it is made.
type vfunc struct {
	v    *verified
	r    *rand.Rand
	e    emitter
	args []arg // nil: this is the main program
	size int   // slots to aim for

	regs [10]value
	// The frame. Slot k is the 8 bytes at R10-8*(k+1). data are those that
	// random code may use; all of them are initialised.
	slots       int
	data        []int
	blurred     map[int]bool // slots of which the verifier remembers nothing
	arms        int          // conditions that the current code hangs on
	savedPacket int          // slot of the packet pointer, -1: none
	savedWindow int          // slot of the window's address, -1: none

	callees []*vfunc
	calls   []vcall
	chain   int // bytes of stack that a call of the function needs
	nest    int // frames below the function's own
	steps   int // of the verifier, for one call, by our estimate
	times   int // how often the verifier walks the current code

	mayGotos bool // a may_goto stands here or in a callee

	failed label // the short exit; placed by end
	fails  bool

	marks   []label // places that wild jumps go back to
	pending []label // and those that lie ahead
}

// arg is what a function expects in one of R1 to R5.
type arg struct {
	role role
	off  int // of a packet pointer
}

// foldSize is how much of the packet the registers and a few slots take.
const foldSize = 96

// windowSize is how much of its frame a caller shows to a callee.
const windowSize = 32

func (v *verified) newFunc(args []arg, size int) *vfunc {
	return &vfunc{v: v, r: v.r, args: args, size: size, times: 1, savedPacket: -1, savedWindow: -1, blurred: map[int]bool{}}
}

// signature chooses arguments: numbers first, then at most one packet pointer
// and one window.
func (v *verified) signature() []arg {
	args := []arg{{role: scalar}}
	for n := v.r.IntN(3); n > 0; n-- {
		args = append(args, arg{role: scalar})
	}
	if v.has&PacketIO != 0 && chance(v.r, 50) {
		args = append(args, arg{packet, v.r.IntN(16)})
	}
	if chance(v.r, 40) {
		args = append(args, arg{role: window})
	}
	v.r.Shuffle(len(args), func(i, j int) { args[i], args[j] = args[j], args[i] })
	return args
}

func (f *vfunc) emit(in ...abi.Insn) {
	f.e.emit(in...)
	f.steps += f.times * len(in)
}

func (f *vfunc) jump(in abi.Insn, l label) {
	f.e.jump(in, l)
	f.steps += f.times
}

func (f *vfunc) set(reg uint8, r role, off int) { f.regs[reg] = value{r, off} }

// with returns the registers that have a role.
func (f *vfunc) with(roles ...role) (regs []uint8) {
	for reg := range f.regs {
		for _, r := range roles {
			if f.regs[reg].role == r {
				regs = append(regs, uint8(reg))
			}
		}
	}
	return regs
}

// operand returns a register to read as a number. In a program that no
// verifier sees, any register will do.
func (f *vfunc) operand() uint8 {
	if f.v.free && chance(f.r, 15) {
		return uint8(f.r.IntN(abi.R10 + 1))
	}
	return f.scalarReg()
}

// scalarReg returns a register that holds a number, and makes one if need be.
func (f *vfunc) scalarReg() uint8 {
	if regs := f.with(scalar); len(regs) > 0 {
		return pick(f.r, regs...)
	}
	reg := f.writable()
	f.setScalar(reg)
	return reg
}

// writable returns a register that may be overwritten: rarely one that holds
// a pointer, since those cost an instruction to bring back.
func (f *vfunc) writable() uint8 {
	if regs := f.with(unset, scalar); len(regs) > 0 && !chance(f.r, 10) {
		return pick(f.r, regs...)
	}
	return pick(f.r, f.with(unset, scalar, packet, frame, window)...)
}

// slotOff is the distance of a slot from R10.
func slotOff(slot int) int16 { return int16(-8 * (slot + 1)) }

// setScalar puts a number into a register.
func (f *vfunc) setScalar(reg uint8) {
	switch n := f.r.IntN(10); {
	case n < 3 && len(f.data) > 0:
		f.emit(insn(opLdxDW, reg, abi.R10, slotOff(pick(f.r, f.data...)), 0))
	case n < 6 && f.canLoadPacket(reg):
		f.unknown(reg)
		return
	case n < 8:
		f.emit(insn(pick[uint8](f.r, opMov64K, opMov32K), reg, 0, 0, constant(f.r)))
	default:
		f.wide(reg)
	}
	f.set(reg, scalar, 0)
}

func (f *vfunc) wide(reg uint8) {
	v := wideConstant(f.r)
	f.emit(insn(abi.OpLdImm64, reg, 0, 0, int32(v)), abi.Insn{Imm: int32(v >> 32)})
}

// packetBase returns a register with a packet pointer.
func (f *vfunc) packetBase() (uint8, bool) {
	if regs := f.with(packet); len(regs) > 0 {
		return pick(f.r, regs...), true
	}
	return 0, false
}

func (f *vfunc) canLoadPacket(uint8) bool {
	_, ok := f.packetBase()
	return ok || f.savedPacket >= 0
}

// unknown puts a number into a register of which the verifier knows nothing,
// so that no branch on it is decided beforehand: eight bytes of the packet, or
// what an atomic operation found on the stack.
func (f *vfunc) unknown(reg uint8) {
	if base, ok := f.packetBase(); ok && chance(f.r, 80) {
		f.emit(insn(opLdxDW, reg, base, f.packetOff(base, 8), 0))
	} else if f.savedPacket >= 0 {
		f.emit(insn(opLdxDW, reg, abi.R10, slotOff(f.savedPacket), 0),
			insn(opLdxDW, reg, reg, int16(f.r.IntN(f.v.packetSize-7)), 0))
	} else if slots := f.slotsFor(8, updates); len(slots) > 0 && f.v.has&Atomics != 0 {
		s := pick(f.r, slots...)
		f.emit(insn(opMov64K, reg, 0, 0, constant(f.r)),
			insn(opAtomDW, abi.R10, reg, slotOff(s), Fetch|AtomicAdd))
	} else {
		f.emit(insn(opMov64K, reg, 0, 0, constant(f.r)))
	}
	f.set(reg, scalar, 0)
}

// packetOff chooses a displacement for an access of n bytes.
func (f *vfunc) packetOff(base uint8, n int) int16 {
	return int16(f.r.IntN(f.v.packetSize-n+1) - f.regs[base].off)
}

// entry is the code before the random one.
func (f *vfunc) entry() {
	f.failed = f.e.newLabel()
	bytes := 16
	switch {
	case f.v.free:
		bytes = 8 * between(f.r, 2, max(2, min(f.size/12, 16)))
	case f.args != nil:
		bytes = between(f.r, 2, 8) * 8
	case f.size > 100:
		bytes = pick(f.r, 16, 64, 120, 128, 136, 200, 256, 320, 496)
	}
	f.slots = bytes / 8
	// The verifier rounds each frame up, and may_goto adds 16 bytes.
	f.chain = (bytes+16+31)/32*32 + 32
	order := f.r.Perm(f.slots)
	switch {
	case f.v.free:
		order = f.entryFree(order)
	case f.args == nil:
		f.regs[abi.R1] = value{role: reserved} // the context
		if f.v.has&PacketIO != 0 {
			f.savedPacket, order = order[0], order[1:]
			f.checkPacket()
		}
	default:
		order = f.saveArgs(order)
	}
	f.data = order
	for _, s := range f.data {
		if regs := f.with(scalar); len(regs) > 0 && chance(f.r, 40) {
			f.emit(insn(opStxDW, abi.R10, pick(f.r, regs...), slotOff(s), 0))
		} else {
			f.emit(insn(opStDW, abi.R10, 0, slotOff(s), constant(f.r)))
		}
	}
	if f.args == nil && !f.v.free {
		f.regs[abi.R1] = value{}
	}
	for _, reg := range f.r.Perm(10) {
		if f.regs[reg].role == unset && (chance(f.r, 75) || reg == 0) && (f.args == nil || chance(f.r, 40)) {
			f.setScalar(uint8(reg))
		}
	}
}

// checkPacket loads and checks the packet pointer, and saves it.
func (f *vfunc) checkPacket() {
	data, end := int16(0), int16(4) // of struct xdp_md
	if f.v.kind == SchedCLS {
		data, end = 76, 80 // of struct __sk_buff
	}
	var regs []uint8
	for _, reg := range f.r.Perm(10) {
		if reg != abi.R1 {
			regs = append(regs, uint8(reg))
		}
	}
	d, e, t := regs[0], regs[1], regs[2]
	f.emit(insn(opLdxW, d, abi.R1, data, 0), insn(opLdxW, e, abi.R1, end, 0),
		insn(opMov64X, t, d, 0, 0), insn(opAdd64K, t, 0, 0, int32(f.v.packetSize)))
	if chance(f.r, 70) {
		f.fails = true
		if chance(f.r, 50) {
			f.jump(insn(opJgtX, t, e, 0, 0), f.failed)
		} else {
			f.jump(insn(0xad, e, t, 0, 0), f.failed) // if e < t
		}
	} else {
		ok := f.e.newLabel()
		f.jump(insn(opJleX, t, e, 0, 0), ok)
		f.emit(insn(opMov64K, 0, 0, 0, 1), abi.Insn{Op: abi.OpExit})
		f.e.place(ok)
	}
	f.emit(insn(opStxDW, abi.R10, d, slotOff(f.savedPacket), 0))
	f.set(d, packet, 0)
}

// saveArgs takes over the arguments and saves pointers among them.
func (f *vfunc) saveArgs(order []int) []int {
	for i, a := range f.args {
		reg := uint8(abi.R1 + i)
		f.set(reg, a.role, a.off)
		switch a.role {
		case packet:
			f.savedPacket, order = order[0], order[1:]
			if a.off != 0 {
				f.emit(insn(opAdd64K, reg, 0, 0, int32(-a.off)))
				f.set(reg, packet, 0)
			}
			f.emit(insn(opStxDW, abi.R10, reg, slotOff(f.savedPacket), 0))
		case window:
			f.savedWindow, order = order[0], order[1:]
			f.emit(insn(opStxDW, abi.R10, reg, slotOff(f.savedWindow), 0))
		}
	}
	return order
}

// body makes the whole function.
func (f *vfunc) body() {
	f.entry()
	limit := f.v.stepLimit
	if f.args != nil {
		limit /= 40
	}
	for len(f.e.insns) < f.size-f.tail() && f.steps < limit {
		f.segment(0, f.size-f.tail()-len(f.e.insns))
	}
	f.landAll()
	if f.args == nil {
		f.endMain()
	} else {
		f.foldInto(0, 4)
		f.emit(abi.Insn{Op: abi.OpExit})
	}
}

// tail is how many slots the end will take.
func (f *vfunc) tail() int {
	if f.args != nil {
		return 6
	}
	return 18 + 2*len(f.data)
}

// endMain stores the registers and the frame into the packet, in order, and
// returns a fold of all of them.
func (f *vfunc) endMain() {
	if f.savedPacket >= 0 && f.v.packetSize >= foldSize {
		f.v.folded = true
		p := f.spare()
		f.emit(insn(opLdxDW, p, abi.R10, slotOff(f.savedPacket), 0))
		f.set(p, reserved, 0)
		for _, reg := range f.with(scalar) {
			f.emit(insn(opStxDW, p, reg, int16(8*reg), 0))
		}
		t := f.scalarReg()
		off := 8 * 10 // behind the registers
		for _, s := range f.data {
			f.emit(insn(opLdxDW, t, abi.R10, slotOff(s), 0))
			if off+8 <= f.v.packetSize {
				f.emit(insn(opStxDW, p, t, int16(off), 0))
				off += 8
			} else if q := f.scalarReg(); q != t {
				f.emit(insn(opXor64X, q, t, 0, 0))
			}
		}
	} else {
		t := f.spare()
		f.set(t, unset, 0)
		for _, s := range f.data {
			f.emit(insn(opLdxDW, t, abi.R10, slotOff(s), 0),
				insn(opAdd64X, f.scalarReg(), t, 0, 0))
		}
	}
	f.foldInto(0, 10)
	f.emit(abi.Insn{Op: abi.OpExit})
	f.e.place(f.failed)
	if f.fails {
		f.emit(insn(opMov64K, 0, 0, 0, constant(f.r)), abi.Insn{Op: abi.OpExit})
	}
}

// spare returns a register that no longer holds anything needed. A number is
// mixed into another one first.
func (f *vfunc) spare() uint8 {
	if regs := f.with(unset, packet, frame, window); len(regs) > 0 {
		return pick(f.r, regs...)
	}
	regs := f.with(scalar)
	f.r.Shuffle(len(regs), func(i, j int) { regs[i], regs[j] = regs[j], regs[i] })
	f.emit(insn(opXor64X, regs[1], regs[0], 0, 0))
	return regs[0]
}

// foldInto leaves in dst a mixture of up to n numbers, both halves of each.
func (f *vfunc) foldInto(dst uint8, n int) {
	if f.regs[dst].role != scalar {
		f.emit(insn(opMov64K, dst, 0, 0, 0))
		f.set(dst, scalar, 0)
	}
	t := dst
	for _, reg := range f.with(scalar) {
		if reg == dst || n == 0 {
			continue
		}
		n--
		f.emit(insn(opXor64X, dst, reg, 0, 0))
		t = reg
	}
	if t != dst { // the upper half counts, too
		f.emit(insn(opMov64X, t, dst, 0, 0), insn(0x77, t, 0, 0, 32), insn(opXor64X, dst, t, 0, 0))
	}
}

// alu emits one arithmetic instruction of any form.
func (f *vfunc) alu() {
	form := pick(f.r, formsALU...)
	info := &tables.Forms[form]
	src := f.operand()
	dst := f.scalarReg()
	if info.Dst.Use == tables.UseWrite && chance(f.r, 50) {
		dst = f.writable()
	}
	imm := aluConstant(f.r, info.Op)
	if f.v.free && chance(f.r, 20) {
		imm = constant(f.r)
	}
	f.emit(build(form, dst, src, 0, imm))
	f.set(dst, scalar, 0)
}
