package interp

import (
	"math"
	"math/bits"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// Config is what a run needs beside its memory. The zero value runs a program
// that calls no helpers.
type Config struct {
	// R1 and R2 are the program's arguments.
	R1, R2 uint64
	// Budget bounds the executed instructions. 0 is abi.DefaultBudget, a
	// negative budget is never used up.
	Budget int64
	// Helper returns the helper function of a number, or nil if there is
	// none; a call of it then ends the run with an abi.UnknownHelper. A nil
	// Helper has none at all.
	Helper func(number uint32) abi.HelperFunc
	// Env is what helpers get.
	Env abi.Env
	// Check, unless nil, is called whenever about abi.Slice of budget has
	// been used. An error that it returns ends the run with StopCancel.
	Check func() error
}

// frame is what a call of a function keeps.
type frame struct {
	back           int // where to go on
	r6, r7, r8, r9 uint64
}

// budget counts what a run may execute.
type budget struct {
	total, left int64
	// poll is what is left when Check is due.
	poll  int64
	check func() error
	calls uint32 // of helpers
}

// take takes n from the budget, which is too small for it if ok is false. With an
// error nothing is taken. It asks when machine code would: when the slice that n
// is to be taken from falls short of it.
func (b *budget) take(n int64) (ok bool, err error) {
	if b.left < n {
		return false, nil
	}
	if b.left-n < b.poll {
		if b.check != nil {
			if err := b.check(); err != nil {
				return true, err
			}
		}
		b.poll = b.left - max(abi.Slice, n)
	}
	b.left -= n
	return true, nil
}

// end makes the result of a run that ends before or at the operation in slot.
func (b *budget) end(stop abi.Stop, slot int) abi.Result {
	return abi.Result{Stop: stop, Slot: slot, Used: b.total - b.left}
}

// Run executes the program on the instance's memory until it ends in one of
// the ways of abi.Stop. The instance's memory is as the run left it. A panic of
// a helper passes through.
func (p *Prog) Run(inst *cage.Instance, cfg *Config) abi.Result {
	var (
		r      [16]uint64
		frames [abi.MaxFrames - 1]frame
		depth  int
		b      = budget{total: cfg.Budget, check: cfg.Check}
	)
	switch {
	case b.total == 0:
		b.total = abi.DefaultBudget
	case b.total < 0:
		b.total = math.MaxInt64
	}
	b.left, b.poll = b.total, b.total-abi.Slice
	r[abi.R1], r[abi.R2], r[abi.R10] = cfg.R1, cfg.R2, abi.StackTop
	if p.count {
		setCounter(inst, r[abi.R10])
	}
	for pc := 0; ; {
		o := &p.ops[pc]
		if o.charge != 0 {
			if ok, err := b.take(int64(max(o.charge, 0))); !ok {
				return b.end(abi.StopBudget, pc)
			} else if err != nil {
				end := b.end(abi.StopCancel, pc)
				end.Err = err
				return end
			}
			if p.trace != nil {
				p.trace(pc)
			}
		}
		slot := pc
		pc++
		dst := &r[o.dst&15]
		x, y := *dst, r[o.src&15]+o.imm
		switch o.code {
		case opAdd:
			*dst = x + y
		case opSub:
			*dst = x - y
		case opMul:
			*dst = x * y
		case opDiv:
			*dst = div(x, y)
		case opSdiv:
			*dst = sdiv(x, y)
		case opMod:
			*dst = mod(x, y)
		case opSmod:
			*dst = smod(x, y)
		case opOr:
			*dst = x | y
		case opAnd:
			*dst = x & y
		case opXor:
			*dst = x ^ y
		case opLsh:
			*dst = x << (y & 63)
		case opRsh:
			*dst = x >> (y & 63)
		case opArsh:
			*dst = uint64(int64(x) >> (y & 63))
		case opNeg:
			*dst = -x
		case opMov:
			*dst = y
		case opMovsx8:
			*dst = uint64(int8(y))
		case opMovsx16:
			*dst = uint64(int16(y))
		case opMovsx32:
			*dst = uint64(int32(y))

		case opAdd32:
			*dst = uint64(uint32(x) + uint32(y))
		case opSub32:
			*dst = uint64(uint32(x) - uint32(y))
		case opMul32:
			*dst = uint64(uint32(x) * uint32(y))
		case opDiv32:
			*dst = div(uint64(uint32(x)), uint64(uint32(y)))
		case opSdiv32:
			*dst = uint64(uint32(sdiv(uint64(int32(x)), uint64(int32(y)))))
		case opMod32:
			*dst = mod(uint64(uint32(x)), uint64(uint32(y)))
		case opSmod32:
			*dst = uint64(uint32(smod(uint64(int32(x)), uint64(int32(y)))))
		case opOr32:
			*dst = uint64(uint32(x | y))
		case opAnd32:
			*dst = uint64(uint32(x & y))
		case opXor32:
			*dst = uint64(uint32(x ^ y))
		case opLsh32:
			*dst = uint64(uint32(x) << (y & 31))
		case opRsh32:
			*dst = uint64(uint32(x) >> (y & 31))
		case opArsh32:
			*dst = uint64(uint32(int32(x) >> (y & 31)))
		case opNeg32:
			*dst = uint64(-uint32(x))
		case opMov32:
			*dst = uint64(uint32(y))
		case opMovsx8w:
			*dst = uint64(uint32(int8(y)))
		case opMovsx16w:
			*dst = uint64(uint32(int16(y)))

		case opLow16:
			*dst = uint64(uint16(x))
		case opLow32:
			*dst = uint64(uint32(x))
		case opLow64:
		case opSwap16:
			*dst = uint64(bits.ReverseBytes16(uint16(x)))
		case opSwap32:
			*dst = uint64(bits.ReverseBytes32(uint32(x)))
		case opSwap64:
			*dst = bits.ReverseBytes64(x)

		case opConst:
			*dst = y
			pc++

		case opJump:
			pc = int(o.off)
		case opJeq:
			if x == y {
				pc = int(o.off)
			}
		case opJne:
			if x != y {
				pc = int(o.off)
			}
		case opJgt:
			if x > y {
				pc = int(o.off)
			}
		case opJge:
			if x >= y {
				pc = int(o.off)
			}
		case opJlt:
			if x < y {
				pc = int(o.off)
			}
		case opJle:
			if x <= y {
				pc = int(o.off)
			}
		case opJsgt:
			if int64(x) > int64(y) {
				pc = int(o.off)
			}
		case opJsge:
			if int64(x) >= int64(y) {
				pc = int(o.off)
			}
		case opJslt:
			if int64(x) < int64(y) {
				pc = int(o.off)
			}
		case opJsle:
			if int64(x) <= int64(y) {
				pc = int(o.off)
			}
		case opJset:
			if x&y != 0 {
				pc = int(o.off)
			}
		case opJeq32:
			if uint32(x) == uint32(y) {
				pc = int(o.off)
			}
		case opJne32:
			if uint32(x) != uint32(y) {
				pc = int(o.off)
			}
		case opJgt32:
			if uint32(x) > uint32(y) {
				pc = int(o.off)
			}
		case opJge32:
			if uint32(x) >= uint32(y) {
				pc = int(o.off)
			}
		case opJlt32:
			if uint32(x) < uint32(y) {
				pc = int(o.off)
			}
		case opJle32:
			if uint32(x) <= uint32(y) {
				pc = int(o.off)
			}
		case opJsgt32:
			if int32(x) > int32(y) {
				pc = int(o.off)
			}
		case opJsge32:
			if int32(x) >= int32(y) {
				pc = int(o.off)
			}
		case opJslt32:
			if int32(x) < int32(y) {
				pc = int(o.off)
			}
		case opJsle32:
			if int32(x) <= int32(y) {
				pc = int(o.off)
			}
		case opJset32:
			if uint32(x&y) != 0 {
				pc = int(o.off)
			}

		case opMayGoto:
			if !countDown(inst, r[abi.R10]) {
				pc = int(o.off)
			}
		case opCall:
			frames[depth] = frame{back: pc, r6: r[abi.R6], r7: r[abi.R7], r8: r[abi.R8], r9: r[abi.R9]}
			depth++
			r[abi.R10] -= abi.FrameSize
			if o.count {
				setCounter(inst, r[abi.R10])
			}
			pc = int(o.off)
		case opExit:
			if depth == 0 {
				end := b.end(abi.StopExit, -1)
				end.R0 = r[abi.R0]
				return end
			}
			depth--
			f := &frames[depth]
			r[abi.R6], r[abi.R7], r[abi.R8], r[abi.R9] = f.r6, f.r7, f.r8, f.r9
			r[abi.R10] += abi.FrameSize
			pc = f.back
		case opHelper, opCallx:
			number := uint32(o.imm)
			if o.code == opCallx {
				number = uint32(x)
			}
			r0, err := cfg.help(number, &r)
			if err != nil {
				end := b.end(abi.StopHelper, slot)
				end.Err = err
				return end
			}
			r[abi.R0] = r0
			clear(r[abi.R1 : abi.R5+1])
			if b.calls++; b.calls%abi.SliceCalls == 0 {
				b.poll = b.left
			}

		default: // memory
			ea := address(r[o.dst&15], o.off)
			if o.code == opLoad || o.code == opLoadSigned || o.code == opLoadAcquire {
				ea = address(r[o.src&15], o.off)
			}
			if !access(inst, o, &r, ea) {
				if !o.probe {
					end := b.end(abi.StopFault, slot)
					end.Addr = ea
					return end
				}
				*dst = 0
			}
		}
	}
}

// address returns the effective address of an access.
func address(reg uint64, off int32) int64 { return int64(uint32(reg)) + int64(off) }

// help calls a helper.
func (cfg *Config) help(number uint32, r *[16]uint64) (uint64, error) {
	var f abi.HelperFunc
	if cfg.Helper != nil {
		f = cfg.Helper(number)
	}
	if f == nil {
		return 0, abi.UnknownHelper(number)
	}
	return f(cfg.Env, r[abi.R1], r[abi.R2], r[abi.R3], r[abi.R4], r[abi.R5])
}
