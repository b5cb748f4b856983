package lower

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// Lower returns the program with everything inserted that the cage needs. p
// must have passed bpf.Check as a source program; it is not changed. Lower
// takes time in proportion to the slots.
//
//	at a charge point      charge n
//	may_goto               count down from abi.MayGotoCount, in the frame
//	division by register   results that RFC 9669 defines where x86 traps
//	division by 0 or -1    the result, without a division
//
// A function that has a may_goto sets its counter where it is called, in
// front of the CHARGE: jumps back to its first instruction must not.
//
// The error is a *bpf.Error that wraps bpf.ErrRange, about a branch that no
// longer fits its 16 bits.
func Lower(p *bpf.Program) (*bpf.Program, error) {
	funcs, err := bpf.Functions(p)
	if err != nil {
		return nil, err
	}
	charges := bpf.Charges(p)
	var l lowerer
	for _, f := range funcs {
		l.function(p, f, charges)
	}
	np, _, err := bpf.Apply(p, l.patches)
	return np, err
}

// lowerer collects patches in the order of the slots.
type lowerer struct {
	patches []bpf.Patch
	// insns is where the instructions of the patches lie.
	insns []bpf.Insn
}

// patch adds a patch.
func (l *lowerer) patch(slot, own int, insns ...bpf.Insn) {
	at := len(l.insns)
	l.insns = append(l.insns, insns...)
	l.patches = append(l.patches, bpf.Patch{Slot: slot, Own: own, Insns: l.insns[at:len(l.insns):len(l.insns)]})
}

func (l *lowerer) function(p *bpf.Program, f bpf.Func, charges []int32) {
	for slot := f.Start; slot < f.End; slot++ {
		if p.Insns[slot].Op == abi.OpMayGoto {
			l.patch(f.Start, bpf.Enter, storeImm(abi.R10, abi.MayGotoOffset, abi.MayGotoCount))
			break
		}
	}
	for slot := f.Start; slot < f.End; slot++ {
		insn := p.Insns[slot]
		if n := charges[slot]; n > 0 {
			l.patch(slot, bpf.Before, bpf.Insn{Op: abi.OpCharge, Imm: n})
		}
		switch {
		case insn.Op == abi.OpMayGoto:
			l.mayGoto(slot)
		case isDivision(insn.Op):
			l.division(slot, insn)
		}
	}
}

// mayGoto counts down, and leaves when nothing is left.
func (l *lowerer) mayGoto(slot int) {
	l.patch(slot, 1,
		load(abi.AX, abi.R10, abi.MayGotoOffset),
		jump(tables.FormJmpJeqK, abi.AX, 0, 0, 0), // the jump of may_goto
		alu(tables.FormAlu64SubK, abi.AX, 0, 1),
		store(abi.R10, abi.MayGotoOffset, abi.AX),
	)
}

// alu makes an arithmetic instruction.
func alu(f tables.Form, dst, src uint8, imm int32) bpf.Insn {
	i := &tables.Forms[f]
	return bpf.Insn{Op: i.Op, Regs: abi.Registers(dst, src), Off: int16(i.Off.Value), Imm: imm}
}

// jump makes a branch or a jump.
func jump(f tables.Form, dst, src uint8, imm int32, off int16) bpf.Insn {
	return bpf.Insn{Op: tables.Forms[f].Op, Regs: abi.Registers(dst, src), Off: off, Imm: imm}
}

func load(dst, base uint8, off int16) bpf.Insn {
	return bpf.Insn{Op: tables.Forms[tables.FormLdxMemDw].Op, Regs: abi.Registers(dst, base), Off: off}
}

func store(base uint8, off int16, src uint8) bpf.Insn {
	return bpf.Insn{Op: tables.Forms[tables.FormStxMemDw].Op, Regs: abi.Registers(base, src), Off: off}
}

func storeImm(base uint8, off int16, imm int32) bpf.Insn {
	return bpf.Insn{Op: tables.Forms[tables.FormStMemDw].Op, Regs: abi.Registers(base, 0), Off: off, Imm: imm}
}
