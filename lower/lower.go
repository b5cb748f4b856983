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
	r := new(Result)
	if err := r.Lower(p); err != nil {
		return nil, err
	}
	return &r.Program, nil
}

// Result is a lowered program.
type Result struct {
	bpf.Patched
	// Funcs are the functions of Program: what bpf.Functions finds.
	Funcs   []bpf.Func
	survey  bpf.Survey
	lowerer lowerer
	whole   [1]bpf.Func // the only function
}

// Lower sets r to p lowered, see the function Lower. It uses the memory that r
// has again. With an error nothing in r is of use.
func (r *Result) Lower(p *bpf.Program) error {
	r.survey.Take(p)
	return r.LowerSurveyed(&r.survey)
}

// LowerSurveyed sets r to the program of a survey, lowered.
func (r *Result) LowerSurveyed(s *bpf.Survey) error {
	l := &r.lowerer
	l.patches, l.funcs = l.patches[:0], nil
	if kinds := s.Kinds(); kinds != 0 {
		if err := l.collect(s, kinds); err != nil {
			return err
		}
	}
	if err := r.ApplyCharged(s, l.patches); err != nil {
		return err
	}
	if l.funcs == nil {
		r.whole[0].End = len(r.Program.Insns)
		r.Funcs = r.whole[:]
	} else {
		r.Funcs = r.MoveFunctions(l.funcs)
	}
	return nil
}

// lowerer collects patches in the order of the slots.
type lowerer struct {
	patches []bpf.Patch
	// insns is where the instructions of the patches lie.
	insns []bpf.Insn
	// entries are the beginnings of functions that have a may_goto. As many as entered
	// have patches.
	entries []int32
	entered int
	// funcs are the functions of the program, if somebody asked.
	funcs []bpf.Func
}

// collect makes the patches of a program that has some kinds of others, but for what is
// charged.
func (l *lowerer) collect(s *bpf.Survey, kinds bpf.Kinds) error {
	l.insns = l.insns[:0]
	l.entries, l.entered = l.entries[:0], 0
	if kinds&(bpf.MayGotos|bpf.Links) != 0 {
		funcs, err := s.Functions()
		if err != nil {
			return err
		}
		l.funcs = funcs
		l.findEntries(s.Others())
	}
	if kinds&(bpf.MayGotos|bpf.Divisions) == 0 {
		return nil
	}
	for _, o := range s.Others() {
		l.enter(o.Slot)
		switch op := o.Insn.Op; {
		case op == abi.OpMayGoto:
			l.mayGoto(int(o.Slot))
		case bpf.IsDivision(op):
			l.division(int(o.Slot), o.Insn)
		}
	}
	return nil
}

// findEntries lists the functions that have a may_goto.
func (l *lowerer) findEntries(others []bpf.Other) {
	k := 0
	for _, o := range others {
		if o.Insn.Op != abi.OpMayGoto {
			continue
		}
		for int(o.Slot) >= l.funcs[k].End {
			k++
		}
		start := int32(l.funcs[k].Start)
		if n := len(l.entries); n == 0 || l.entries[n-1] != start {
			l.entries = append(l.entries, start)
		}
	}
}

// enter makes the patches of entries up to a slot.
func (l *lowerer) enter(slot int32) {
	for ; l.entered < len(l.entries) && l.entries[l.entered] <= slot; l.entered++ {
		l.patch(int(l.entries[l.entered]), bpf.Enter, storeImm(abi.R10, abi.MayGotoOffset, abi.MayGotoCount))
	}
}

// patch adds a patch.
func (l *lowerer) patch(slot, own int, insns ...bpf.Insn) {
	at := len(l.insns)
	l.insns = append(l.insns, insns...)
	l.patches = append(l.patches, bpf.Patch{Slot: slot, Own: own, Insns: l.insns[at:len(l.insns):len(l.insns)]})
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
