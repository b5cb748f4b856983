package testprog

import (
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// maxNesting bounds branches and loops within one another.
const maxNesting = 4

// segment emits a piece of random code of about up to room slots.
func (f *vfunc) segment(nesting, room int) {
	if regs := f.with(unset); len(regs) > 0 && len(f.with(scalar)) < 4 && chance(f.r, 60) {
		f.setScalar(pick(f.r, regs...))
	}
	if f.v.free && f.event(nesting) {
		return
	}
	has := func(x Features) bool { return f.v.has&x != 0 }
	switch n := f.r.IntN(100); {
	case n < 30:
		for k := between(f.r, 1, 6); k > 0; k-- {
			f.alu()
		}
	case n < 55:
		f.memory()
	case n < 62 && has(Atomics):
		f.atomic()
	case n < 65:
		f.wide(f.scalarReg())
	case n < 69:
		f.pointer()
	case n < 78 && nesting < maxNesting && room > 4:
		f.ifElse(nesting, room)
	case n < 82 && has(Loops) && nesting < maxNesting && room > 8 && f.times <= 16:
		f.loop(nesting, room)
	case n < 85 && has(Calls):
		f.call()
	case n < 87 && has(Helpers):
		f.helper()
	case n < 92 && has(Edges) && room > 30:
		f.edge()
	case n < 95 && room > 30 && f.times <= 8:
		f.dense(min(room, between(f.r, 10, 60)))
	case n < 96:
		f.earlyExit()
	case n < 97 && has(MayGotos) && (f.times == 1 || f.v.free) && nesting < maxNesting && room > 4:
		f.mayGoto(nesting, room)
	default:
		f.alu()
	}
}

// block emits segments of about n slots in all.
func (f *vfunc) block(nesting, n int) {
	for end := len(f.e.insns) + n; len(f.e.insns) < end; {
		f.segment(nesting, end-len(f.e.insns))
	}
}

// branch emits a conditional jump, mostly on a number that the verifier
// can't know: of a jump that it can decide it removes one side, and remembers
// the numbers behind the decision, so that it walks what follows once for
// each of their values.
func (f *vfunc) branch(l label) {
	a := f.scalarReg()
	if chance(f.r, 85) {
		f.unknown(a)
	}
	form := pick(f.r, formsCond...)
	f.jump(build(form, a, f.operand(), 0, constant(f.r)), l)
}

// always emits an unconditional jump.
func (f *vfunc) always(l label) {
	f.jump(abi.Insn{Op: pick[uint8](f.r, abi.OpJa, abi.OpJa, abi.OpGotol)}, l)
}

// meet is what holds on both of two ways to the same place.
func meet(a, b [10]value) [10]value {
	for reg := range a {
		if a[reg] != b[reg] {
			a[reg] = value{}
		}
	}
	return a
}

// ifElse emits a branch over a block, or between two.
func (f *vfunc) ifElse(nesting, room int) {
	skip := f.e.newLabel()
	f.branch(skip)
	before := f.regs
	f.arms++
	defer func() { f.arms-- }()
	n := between(f.r, 1, min(room/2, 60))
	f.block(nesting+1, n)
	if chance(f.r, 50) {
		f.e.place(skip)
		f.regs = meet(before, f.regs)
		return
	}
	end := f.e.newLabel()
	f.always(end)
	f.e.place(skip)
	then := f.regs
	f.regs = before
	if n := f.r.IntN(min(room/2, 30) + 1); n > 0 {
		f.block(nesting+1, n)
	}
	f.e.place(end)
	f.regs = meet(then, f.regs)
}

// mayGoto emits a may_goto, which never jumps in so short a program. It must
// not stand in a loop: there the verifier forgets the counter, and with it
// that the loop ends.
func (f *vfunc) mayGoto(nesting, room int) {
	f.mayGotos = true
	skip := f.e.newLabel()
	f.jump(abi.Insn{Op: abi.OpMayGoto}, skip)
	before := f.regs
	f.arms++
	f.block(nesting+1, between(f.r, 1, min(room/2, 20)))
	f.arms--
	f.e.place(skip)
	f.regs = meet(before, f.regs)
}

// earlyExit emits an exit that is seldom taken.
func (f *vfunc) earlyExit() {
	skip := f.e.newLabel()
	a := f.scalarReg()
	f.unknown(a)
	f.jump(insn(opJneK, a, 0, 0, int32(f.r.Uint32())), skip)
	before := f.regs
	if f.regs[0].role != scalar {
		f.setScalar(0)
	}
	f.emit(abi.Insn{Op: abi.OpExit})
	f.e.place(skip)
	f.regs = before
}

// loop emits a counted loop. The counter is a register that the body leaves
// alone.
func (f *vfunc) loop(nesting, room int) {
	c := f.writable()
	turns := pick(f.r, 2, 2, 3, 4, 5, 8)
	f.startCount(c)
	head := f.e.here()
	atHead := f.regs
	f.times *= turns
	f.block(nesting+1, between(f.r, 1, min(room/2, 40)))
	f.restore(atHead)
	f.count(c, turns, head)
	f.times /= turns
	f.set(c, scalar, 0)
}

func (f *vfunc) startCount(c uint8) {
	f.emit(insn(pick[uint8](f.r, opMov64K, opMov32K), c, 0, 0, 0))
	f.set(c, reserved, 0)
}

// count emits the end of a loop that began with a count of 0.
func (f *vfunc) count(c uint8, turns int, head label) {
	class := pick[uint8](f.r, abi.ClassJMP, abi.ClassJMP32)
	f.emit(insn(pick[uint8](f.r, opAdd64K, 0x04), c, 0, 0, 1))
	n := int32(turns)
	switch f.r.IntN(6) {
	case 0:
		f.jump(insn(uint8(NE)|class, c, 0, 0, n), head)
	case 1:
		f.jump(insn(uint8(LE)|class, c, 0, 0, n-1), head)
	case 2:
		f.jump(insn(uint8(SLT)|class, c, 0, 0, n), head)
	case 3:
		f.jump(insn(uint8(SLE)|class, c, 0, 0, n-1), head)
	case 4: // out of the loop, else back
		out := f.e.newLabel()
		f.jump(insn(pick(f.r, uint8(EQ), uint8(GE), uint8(SGE))|class, c, 0, 0, n), out)
		f.always(head)
		f.e.place(out)
	default:
		f.jump(insn(uint8(LT)|class, c, 0, 0, n), head)
	}
}

// restore brings back what registers held at some earlier place.
func (f *vfunc) restore(want [10]value) {
	for i, w := range want {
		reg := uint8(i)
		if f.regs[reg] == w {
			continue
		}
		switch w.role {
		case scalar:
			f.setScalar(reg)
			continue
		case packet:
			f.emit(insn(opLdxDW, reg, abi.R10, slotOff(f.savedPacket), 0))
		case window:
			f.emit(insn(opLdxDW, reg, abi.R10, slotOff(f.savedWindow), 0))
		case frame:
			f.emit(insn(opMov64X, reg, abi.R10, 0, 0))
		}
		if w.off != 0 {
			f.emit(insn(opAdd64K, reg, 0, 0, int32(w.off)))
		}
		f.regs[reg] = w
	}
}

// pointer makes a register a pointer, or moves one.
func (f *vfunc) pointer() {
	if regs := f.with(packet, frame, window); len(regs) > 0 && chance(f.r, 30) {
		from, to := pick(f.r, regs...), f.writable()
		v := f.regs[from]
		f.emit(insn(opMov64X, to, from, 0, 0))
		f.regs[to] = v
		return
	}
	reg := f.writable()
	want := f.regs
	switch n := f.r.IntN(3); {
	case n == 0 && f.savedPacket >= 0:
		want[reg] = value{packet, pick(f.r, 0, f.r.IntN(f.v.packetSize))}
	case n == 1 && f.savedWindow >= 0:
		want[reg] = value{window, 0}
	default:
		want[reg] = value{frame, -pick(f.r, 8, 8*f.r.IntN(64), f.r.IntN(512))}
	}
	f.restore(want)
}

// access is what an instruction does to memory.
type access uint8

const (
	reads access = iota
	writes
	updates // an atomic operation
)

// blurs says whether a write leaves a slot of the frame in a state in which
// the verifier remembers nothing of it. A write of 4 or 8 bytes it remembers.
func (a access) blurs(n int) bool { return a == updates || a == writes && n <= 2 }

// address chooses an address for an access of n bytes. The packet is out of
// bounds for atomic operations.
func (f *vfunc) address(n int, a access, ordered bool) (base uint8, off int16, ok bool) {
	slots := f.slotsFor(n, a)
	var regs []uint8
	if len(slots) > 0 {
		regs = append(f.with(frame), abi.R10, abi.R10)
	}
	if a == reads || a.blurs(n) || f.v.free {
		regs = append(regs, f.with(window)...)
	}
	if f.v.free || a != updates && !ordered {
		regs = append(regs, f.with(packet, packet)...)
	}
	if len(regs) == 0 {
		return 0, 0, false
	}
	base = pick(f.r, regs...)
	at := value{role: frame}
	if base != abi.R10 {
		at = f.regs[base]
	}
	switch at.role {
	case packet:
		off = f.packetOff(base, n)
		if ordered { // and so aligned
			off = int16((int(off)+at.off)/n*n - at.off)
		}
		return base, off, true
	case window:
		return base, int16(n*f.r.IntN(windowSize/n) - at.off), true
	}
	slot := pick(f.r, slots...)
	if a != reads {
		f.blurred[slot] = a.blurs(n)
	}
	return base, slotOff(slot) + int16(n*f.r.IntN(8/n)-at.off), true
}

// slotsFor returns the slots of the frame that an access may go to. The
// verifier merges two ways to a place only if it remembers the same kind of
// thing of each slot on both, else it walks the rest twice. So what stands on
// one way only may write only to slots that are blurred, and must leave them so.
//
// Atomic operations always want a blurred slot. The number that one fetches
// from another kind of slot the verifier of Linux 6.18 takes for known, but it
// doesn't note that a decision depends on that slot; so it may merge two ways
// that differ there, and remove code that runs.
func (f *vfunc) slotsFor(n int, a access) []int {
	if a == reads || f.v.free || f.arms == 0 && a != updates {
		return f.data
	}
	if !a.blurs(n) {
		return nil
	}
	var slots []int
	for _, s := range f.data {
		if f.blurred[s] {
			slots = append(slots, s)
		}
	}
	if slots == nil && f.arms == 0 && len(f.data) > 0 {
		s := pick(f.r, f.data...)
		f.blur(s)
		slots = append(slots, s)
	}
	return slots
}

// blur makes the verifier forget what a slot holds.
func (f *vfunc) blur(slot int) {
	f.emit(insn(opStB, abi.R10, 0, slotOff(slot), int32(between(f.r, 1, 127))))
	f.blurred[slot] = true
}

// memory emits a load or a store of any form.
func (f *vfunc) memory() {
	switch f.r.IntN(5) {
	case 0, 1:
		f.load(pick(f.r, formsLoad...))
	case 2:
		form, k := pick(f.r, formsStoreK...), constant(f.r)
		if uint8(k) == 0 { // a slot of zeros is remembered as such
			k++
		}
		if base, off, ok := f.address(abi.AccessSize(tables.Forms[form].Op), writes, false); ok {
			f.emit(build(form, base, 0, off, k))
		}
	default:
		f.store(pick(f.r, formsStoreX...), false)
	}
}

func (f *vfunc) store(form tables.Form, ordered bool) {
	src := f.operand()
	if base, off, ok := f.address(abi.AccessSize(tables.Forms[form].Op), writes, ordered); ok {
		f.emit(build(form, base, src, off, 0))
	}
}

func (f *vfunc) load(form tables.Form) {
	ordered := isAtomic(tables.Forms[form].Op)
	base, off, ok := f.address(abi.AccessSize(tables.Forms[form].Op), reads, ordered)
	if !ok {
		return
	}
	dst := f.writable()
	f.emit(build(form, dst, base, off, 0))
	f.set(dst, scalar, 0)
}

// atomic emits an atomic operation of any form.
func (f *vfunc) atomic() {
	switch f.r.IntN(6) {
	case 0:
		f.load(pick(f.r, formsAcquire...))
		return
	case 1:
		f.store(pick(f.r, formsRelease...), true)
		return
	}
	form, src := pick(f.r, formsAtomic...), f.scalarReg()
	info := &tables.Forms[form]
	base, off, ok := f.address(abi.AccessSize(info.Op), updates, true)
	if !ok {
		return
	}
	if info.Imm.Value == AtomicCmpXch && f.regs[0].role != scalar {
		if base == 0 || f.regs[0].role == reserved {
			return
		}
		f.setScalar(0)
	}
	f.emit(build(form, base, src, off, 0))
	if info.Imm.Value == AtomicCmpXch && abi.AccessSize(info.Op) == 4 && !f.v.free {
		// RFC 9669 wants R0 zero-extended. The verifier of Linux 6.18 leaves
		// that out where it believes that nobody reads the upper half, and is
		// sometimes wrong. So it is extended here, or read at once.
		f.emit(pick(f.r, insn(opMov32X, 0, 0, 0, 0), insn(opAdd64K, 0, 0, 0, 0)))
	}
}

// helper emits a call of a helper. Its result depends on the machine, so it
// is thrown away.
func (f *vfunc) helper() {
	if f.reservedBelow(6) {
		return
	}
	n := pick[int32](f.r, 5, 7, 8)
	if f.v.free && chance(f.r, 30) {
		reg := f.writable()
		f.emit(insn(opMov64K, reg, 0, 0, n), insn(abi.OpCallx, reg, 0, 0, 0))
		f.set(reg, scalar, 0)
	} else {
		f.emit(insn(abi.OpCall, 0, abi.CallHelper, 0, n))
	}
	f.clobber()
	if !f.v.free && chance(f.r, 70) {
		f.setScalar(0)
	}
}

// reservedBelow says whether one of R0 to R(n-1) is reserved, so that no call
// may stand here.
func (f *vfunc) reservedBelow(n int) bool {
	for _, v := range f.regs[:n] {
		if v.role == reserved {
			return true
		}
	}
	return false
}

// clobber forgets what a call leaves undefined. Without a verifier nothing is
// undefined.
func (f *vfunc) clobber() {
	for reg := abi.R0; reg <= abi.R5; reg++ {
		f.regs[reg] = value{}
		if f.v.free {
			f.regs[reg].role = scalar
		}
	}
}

// maxChain is the verifier's limit for the stack of a chain of calls.
const maxChain = 512

// call emits a call of one of the program's functions.
func (f *vfunc) call() {
	if len(f.callees) == 0 || f.reservedBelow(6) {
		f.alu()
		return
	}
	c := pick(f.r, f.callees...)
	own := (f.slots*8+16+31)/32*32 + 32
	tooDeep := own+c.chain > maxChain || f.times > 1 && c.mayGotos
	if f.v.free {
		tooDeep = c.nest+1 >= abi.MaxFrames
	}
	if tooDeep || f.steps+f.times*c.steps > f.v.stepLimit || f.args != nil && c.steps > f.v.stepLimit/80 {
		f.alu()
		return
	}
	want := f.regs
	for i, a := range c.args {
		reg := abi.R1 + i
		switch a.role {
		case packet:
			if f.savedPacket < 0 {
				return
			}
			want[reg] = value{packet, a.off}
		case window:
			slot, ok := f.windowSlot()
			if !ok {
				return
			}
			want[reg] = value{frame, int(slotOff(slot))}
		default:
			want[reg] = value{scalar, 0}
		}
	}
	f.restore(want)
	f.calls = append(f.calls, vcall{len(f.e.insns), c})
	f.emit(insn(abi.OpCall, 0, abi.CallLocal, 0, 0))
	f.steps += f.times * c.steps
	f.mayGotos = f.mayGotos || c.mayGotos
	f.chain = max(f.chain, own+c.chain)
	f.nest = max(f.nest, c.nest+1)
	f.clobber()
	f.set(0, scalar, 0)
}

// windowSlot returns the lowest slot of as many as a window takes, all of
// them free for random code and, once it has seen to it, blurred.
func (f *vfunc) windowSlot() (int, bool) {
	usable := func(s int) bool {
		return slices.Contains(f.data, s) && (f.arms == 0 || f.blurred[s])
	}
	var lowest []int
	for _, s := range f.data { // slots count downwards in memory
		ok := true
		for k := range windowSize / 8 {
			ok = ok && usable(s-k)
		}
		if ok {
			lowest = append(lowest, s)
		}
	}
	if len(lowest) == 0 {
		return 0, false
	}
	slot := pick(f.r, lowest...)
	for s := slot; s > slot-windowSize/8; s-- {
		if !f.blurred[s] {
			f.blur(s)
		}
	}
	return slot, true
}
