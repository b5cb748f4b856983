package testprog

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Bounds of a wild program.
const (
	minWild = 5
	maxWild = 600
	// wildSteps bounds what a well-behaved program executes.
	wildSteps = 4000
)

// Wild makes a random program of the Source dialect, as program i of a seed.
// It passes bpf.Check. R1 is the address of Program.Packet, at abi.MemBase,
// and R2 its length.
//
// A third of the programs behave: they access what they may, and end. In the
// others now and then something happens on purpose: a pointer is 0, -1 or lies
// at an edge, an offset is any number, a loop never ends, an atomic operation
// is misaligned, a jump goes anywhere, an unknown helper is called; or any
// instruction at all stands there.
//
// Helpers 5, 7 and 8 are called and their results used, so that they must
// give the same in every run. The programs call other helpers only where they
// are wild.
func Wild(seed, i uint64, l Limits) Program {
	r := Rand(seed, i)
	lo, hi := l.MinSize, l.MaxSize
	if lo == 0 {
		lo = minWild
	}
	if hi == 0 {
		hi = maxWild
	}
	v := &verified{r: r, has: AllFeatures &^ l.Without, free: true, stepLimit: wildSteps}
	switch n := r.IntN(100); {
	case n < 35:
	case n < 70:
		v.events = 40
	default:
		v.events = 300
	}
	size := logUniform(r, lo, hi)
	for {
		insns := v.wildProgram(size)
		if len(insns) <= max(hi, 60) {
			p := Program{Name: fmt.Sprintf("wild seed=%d i=%d", seed, i), Insns: insns,
				Packet: v.packetFree(), Folded: v.folded, Wild: v.events > 0}
			return p
		}
		size = size * 3 / 4
	}
}

func (v *verified) packetFree() []byte {
	p := make([]byte, v.packetSize)
	for i := range p {
		p[i] = byte(v.r.Uint32())
	}
	return p
}

// wildProgram makes the functions and joins them.
func (v *verified) wildProgram(size int) []abi.Insn {
	v.funcs, v.folded = nil, false
	v.packetSize = pick(v.r, 8, 16, 64, foldSize, 200, 512, 4096, 5000)
	main := v.newFunc(nil, size)
	if v.has&Calls != 0 && size > 24 && chance(v.r, 50) {
		share := size / 2
		n := between(v.r, 1, 4)
		if chance(v.r, 20) {
			n = 9 // and so more frames than there are
		}
		for ; n > 0 && share > 8; n-- {
			f := v.newFunc(v.signature(), between(v.r, 6, min(share, 80)))
			f.callees = v.funcs
			if len(v.funcs) > 0 && chance(v.r, 70) {
				f.callees = v.funcs[len(v.funcs)-1:]
			}
			f.body()
			v.funcs = append(v.funcs, f)
			share -= len(f.e.insns)
		}
		main.size = size - (size/2 - share)
		main.callees = v.funcs
	}
	main.body()
	return v.link(main)
}

// entryFree is the entry of a function that no verifier sees: every register
// may be read.
func (f *vfunc) entryFree(order []int) []int {
	for reg := range f.regs {
		f.regs[reg] = value{role: scalar}
	}
	if f.args != nil {
		return f.saveArgs(order)
	}
	f.set(abi.R1, packet, 0)
	f.savedPacket, order = order[0], order[1:]
	f.emit(insn(opStxDW, abi.R10, abi.R1, slotOff(f.savedPacket), 0))
	return order
}

// event is where a wild program gets wild. It says whether it emitted
// anything.
func (f *vfunc) event(nesting int) bool {
	if f.v.events == 0 {
		return false
	}
	f.landmarks()
	if f.r.IntN(1000) >= f.v.events {
		return false
	}
	switch f.r.IntN(12) {
	case 0, 1:
		f.wildPointer()
	case 2:
		f.wildOffset()
	case 3:
		f.memoryEdge()
	case 4:
		f.misaligned()
	case 5:
		f.endless()
	case 6, 7:
		f.wildJump()
	case 8:
		f.wildCall()
	case 9:
		f.otherFrame()
	default:
		for n := between(f.r, 1, 4); n > 0; n-- {
			f.anything()
		}
	}
	return true
}

// landmarks makes places that wild jumps may lead to.
func (f *vfunc) landmarks() {
	if len(f.marks) < 20 && chance(f.r, 30) {
		f.marks = append(f.marks, f.e.here())
	}
	for len(f.pending) > 0 && chance(f.r, 50) {
		f.e.place(f.pending[0])
		f.pending = f.pending[1:]
	}
}

// landAll places the wild jumps that never landed.
func (f *vfunc) landAll() {
	for _, l := range f.pending {
		f.e.place(l)
	}
	f.pending = nil
}

// address64 puts an interesting address into a register: outside of
// everything, or next to a border of the address plan.
func (f *vfunc) address64(reg uint8) {
	near := func(a uint64) uint64 { return a + uint64(int64(between(f.r, -16, 16))) }
	a := pick(f.r,
		0, ^uint64(0), 1<<63, 0x0000_8000_0000_0000, 0xffff_8000_0000_0000, // null, and not canonical
		near(abi.StackBase), near(abi.StackTop), near(abi.CtxBase), near(abi.CtxBase+abi.CtxSize),
		near(abi.MemBase), near(abi.MemBase+uint64(f.v.packetSize)), near(abi.MemBase+abi.PageSize),
		near(abi.HandleBase), near(abi.HandleBase+abi.HandleStep), near(abi.SharedBase),
		near(1<<32), near(1<<32-0x8000), near(0x8000), f.r.Uint64(), uint64(f.r.Uint32()))
	if chance(f.r, 20) { // the upper half doesn't matter
		a = abi.MemBase + uint64(f.r.IntN(f.v.packetSize)) | f.r.Uint64()<<32
	}
	f.emit(insn(abi.OpLdImm64, reg, 0, 0, int32(a)), abi.Insn{Imm: int32(a >> 32)})
	f.set(reg, scalar, 0)
}

// sourceForms are all forms of the dialect.
var sourceForms = SourceForms()

// accessForms are all forms that access memory.
var accessForms = formsWhere(func(f *tables.FormInfo) bool {
	return f.Dst.Use == tables.UseAddress || f.Src.Use == tables.UseAddress
})

// accessAt emits an access of any form through a register other than R10.
func (f *vfunc) accessAt(base uint8, off int16) {
	form := pick(f.r, accessForms...)
	info := &tables.Forms[form]
	other := f.operand()
	if info.Src.Use == tables.UseAddress {
		dst := f.writable()
		f.emit(build(form, dst, base, off, 0))
		f.set(dst, scalar, 0)
		return
	}
	if info.Src.Writes() && other == abi.R10 {
		other = f.scalarReg()
	}
	f.emit(build(form, base, other, off, constant(f.r)))
}

// wildPointer accesses memory at an interesting address.
func (f *vfunc) wildPointer() {
	reg := f.writable()
	f.address64(reg)
	f.accessAt(reg, pick(f.r, 0, 0, int16(between(f.r, -16, 16)), int16(f.r.Uint32()), -0x8000, 0x7fff))
}

// wildOffset accesses memory at any offset from a good pointer.
func (f *vfunc) wildOffset() {
	regs := f.with(packet, frame, window)
	if len(regs) == 0 {
		return
	}
	f.accessAt(pick(f.r, regs...), int16(f.r.Uint32()))
}

// memoryEdge accesses memory across the end of what is mapped, which is the
// end of a page.
func (f *vfunc) memoryEdge() {
	reg := f.writable()
	end := abi.MemBase + (f.v.packetSize+abi.PageSize-1)/abi.PageSize*abi.PageSize
	f.emit(insn(opMov32K, reg, 0, 0, int32(end-f.r.IntN(10))))
	f.set(reg, scalar, 0)
	f.accessAt(reg, int16(between(f.r, -2, 2)))
}

// misaligned is an atomic operation that need not be aligned.
func (f *vfunc) misaligned() {
	base, ok := f.packetBase()
	if !ok {
		return
	}
	src := f.scalarReg()
	f.emit(build(pick(f.r, formsAtomic...), base, src, f.packetOff(base, 8), 0))
}

// endless is a loop that ends only with the budget, or by a helper's doing.
func (f *vfunc) endless() {
	head := f.e.here()
	if chance(f.r, 60) {
		skip := f.e.newLabel()
		f.branch(skip) // perhaps around it
		head = f.e.here()
		f.alu()
		f.always(head)
		f.e.place(skip)
		return
	}
	for n := f.r.IntN(4); n > 0; n-- {
		f.alu()
	}
	out := f.e.newLabel()
	f.jump(abi.Insn{Op: abi.OpMayGoto}, out)
	f.branch(head)
	f.e.place(out)
}

// wildJump goes to some other place of the function if a comparison says so.
func (f *vfunc) wildJump() {
	var l label
	if len(f.marks) > 0 && chance(f.r, 50) {
		l = pick(f.r, f.marks...)
	} else {
		l = f.e.newLabel()
		f.pending = append(f.pending, l)
	}
	switch f.r.IntN(6) {
	case 0:
		f.jump(abi.Insn{Op: abi.OpMayGoto}, l)
	case 1:
		skip := f.e.newLabel()
		f.branch(skip)
		f.always(l)
		f.e.place(skip)
	default:
		f.branch(l)
	}
}

// wildCall calls something that may not exist, or takes a function's handle.
func (f *vfunc) wildCall() {
	switch reg := f.writable(); {
	case len(f.callees) > 0 && chance(f.r, 40):
		f.calls = append(f.calls, vcall{len(f.e.insns), pick(f.r, f.callees...)})
		f.emit(insn(abi.OpLdImm64, reg, abi.Imm64Func, 0, 0), abi.Insn{})
		f.set(reg, scalar, 0)
		if chance(f.r, 30) {
			f.accessAt(reg, int16(f.r.IntN(64)))
		}
	case chance(f.r, 40):
		f.emit(insn(abi.OpCallx, f.operand(), 0, 0, 0))
		f.clobber()
	default:
		f.emit(insn(abi.OpCall, 0, abi.CallHelper, 0, pick(f.r, 1, 2, 3, 6, 4, 0, 999, -1, constant(f.r))))
		f.clobber()
	}
}

// otherFrame accesses the stack outside of the function's own frame, through
// a copy of R10.
func (f *vfunc) otherFrame() {
	reg := f.writable()
	f.emit(insn(opMov64X, reg, abi.R10, 0, 0))
	f.set(reg, scalar, 0)
	f.accessAt(reg, int16(pick(f.r, between(f.r, -1100, 1100), abi.MayGotoOffset, -abi.StackSize+between(f.r, -16, 16), 0, -1)))
}

// anything emits an instruction of any form with any operands that the
// dialect allows.
func (f *vfunc) anything() {
	form := pick(f.r, sourceForms...)
	info := &tables.Forms[form]
	dst, src := uint8(f.r.IntN(abi.R10)), uint8(f.r.IntN(abi.R10))
	switch {
	case form == tables.FormLdSecond, info.Op == abi.OpExit && chance(f.r, 70):
		return
	case info.Op == abi.OpLdImm64:
		f.wide(dst)
	case info.Flow == tables.FlowBranch, info.Flow == tables.FlowJump:
		f.wildJump()
		return
	case info.Flow == tables.FlowCall:
		f.wildCall()
		return
	case info.Op == abi.OpExit:
		skip := f.e.newLabel()
		f.branch(skip)
		f.emit(build(form, 0, 0, 0, 0))
		f.e.place(skip)
		return
	default:
		f.emit(build(form, dst, src, pick(f.r, int16(f.r.Uint32()), int16(between(f.r, -8, 64))), constant(f.r)))
	}
	if info.Dst.Writes() {
		f.set(dst, scalar, 0)
	}
	if info.Src.Writes() {
		f.set(src, scalar, 0)
	}
}
