// Command blind generates the assembly of package blind: laying out a block of
// a program and copying its instructions to their new places.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into blind.blockJob. A test pins them, and those below, to the
// structs.
const (
	jobInsns     = 0
	jobFlags     = 8
	jobOrigin    = 16
	jobIndex     = 24
	jobOut       = 32
	jobNewFlags  = 40
	jobNewOrigin = 48
	jobChoices   = 56
	jobLists     = 64
	jobCount     = 72
	jobFrom      = 80
	jobHidden    = 88
	jobOther     = 96
	jobNumbers   = 104
	jobRules     = 112
	jobReserved  = 120
)

// Offsets into blind.choiceTable and blind.lists.
const (
	choiceRule   = 0
	choiceRow    = 512
	choiceUsable = 2560
	choiceOther  = 3072
	choiceBack   = 3584
	choiceHides  = 3840
	choiceSlots  = 4096

	listRules  = 0
	listHidden = 256
	listOther  = 512
)

// Offsets into blind.rule, whose size is 1<<ruleShift.
const (
	ruleMov      = 0
	ruleXor      = 4
	ruleOwn      = 8
	ruleReserved = 12
	ruleOp       = 14
	ruleShift    = 4
)

// Offsets into bpf.Insn, and numbers of package blind.
const (
	insnOff  = 2
	insnRegs = 1
	insnImm  = 4
	zeroKey  = 256 // added to the key where imm is 0
	inserted = 1
	ax       = 11
)

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	layOut()
	hide()
	Generate()
}

func layOut() {
	TEXT("layOutAVO", NOSPLIT, "func(job *uint64)")
	Pragma("noescape")
	Doc("layOutAVO does for the slots of a block what layOutGeneric and copyGeneric do.")
	insns, flags, out, newFlags, choices, lists := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	i, at, hidden, other := GP64(), GP64(), GP64(), GP64()
	key, t, op, rule := reg.RAX, reg.RBX, reg.RCX, reg.RDX
	index, origin, newOrigin, count, from := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)

	Load(Param("job"), key)
	job := func(at int) Mem { return Mem{Base: key, Disp: at} }
	for _, l := range []struct {
		at int
		r  reg.GPVirtual
	}{
		{jobInsns, insns}, {jobFlags, flags}, {jobOut, out}, {jobNewFlags, newFlags}, {jobChoices, choices}, {jobLists, lists},
	} {
		MOVQ(job(l.at), l.r)
	}
	for _, l := range []struct {
		at int
		m  Mem
	}{{jobIndex, index}, {jobOrigin, origin}, {jobNewOrigin, newOrigin}, {jobCount, count}, {jobFrom, from}} {
		MOVQ(job(l.at), t)
		MOVQ(t, l.m)
	}
	MOVQ(job(jobIndex), t)
	MOVL(Mem{Base: t}, at.As32())
	XORL(i.As32(), i.As32())
	XORL(hidden.As32(), hidden.As32())
	XORL(other.As32(), other.As32())

	slot := func(base reg.Register, disp int) Mem { return Mem{Base: insns, Index: base, Scale: 8, Disp: disp} }
	choice := func(disp int, index reg.Register, scale uint8) Mem {
		return Mem{Base: choices, Index: index, Scale: scale, Disp: disp}
	}
	list := func(disp int, index reg.Register) Mem { return Mem{Base: lists, Index: index, Scale: 1, Disp: disp} }

	Label("slot")
	Comment("key = op, and zeroKey if imm is 0; op = the slot that has the registers")
	MOVBLZX(slot(i, 0), op.As32())
	XORL(key.As32(), key.As32())
	CMPL(slot(i, insnImm), U8(1))
	SBBL(key.As32(), key.As32())
	ANDL(U32(zeroKey), key.As32())
	ORL(op.As32(), key.As32())
	MOVBLZX(choice(choiceBack, op, 1), op.As32())
	NEGQ(op)
	ADDQ(i, op)
	Comment("rule = Rule & Usable, if that slot was not inserted")
	MOVBLZX(slot(op, insnRegs), t.As32())
	ADDL(choice(choiceRow, key, 4), t.As32())
	MOVBLZX(choice(choiceUsable, t, 1), rule.As32())
	ANDB(choice(choiceRule, key, 1), rule.As8())
	MOVBLZX(Mem{Base: flags, Index: op, Scale: 1}, t.As32())
	ANDL(U8(inserted), t.As32())
	DECL(t.As32())
	ANDL(t.As32(), rule.As32())
	MOVB(rule.As8(), list(listRules, i))
	Comment("The slot is on the lists if the rule and the key say so.")
	MOVB(i.As8(), list(listHidden, hidden))
	MOVB(i.As8(), list(listOther, other))
	MOVBLZX(choice(choiceHides, rule, 1), t.As32())
	ADDQ(t, hidden)
	MOVBLZX(choice(choiceOther, key, 1), t.As32())
	ADDQ(t, other)
	Comment("index[i] = at; at += slots of the rule; the instruction is the last of them")
	MOVQ(index, t)
	MOVL(at.As32(), Mem{Base: t, Index: i, Scale: 4})
	MOVBLZX(choice(choiceSlots, rule, 1), t.As32())
	ADDQ(t, at)
	MOVQ(slot(i, 0), t)
	MOVQ(t, Mem{Base: out, Index: at, Scale: 8, Disp: -8})
	MOVBLZX(Mem{Base: flags, Index: i, Scale: 1}, t.As32())
	MOVB(t.As8(), Mem{Base: newFlags, Index: at, Scale: 1, Disp: -1})
	MOVQ(origin, t)
	MOVL(Mem{Base: t, Index: i, Scale: 4}, t.As32())
	ADDL(from, t.As32())
	MOVQ(newOrigin, op)
	MOVL(t.As32(), Mem{Base: op, Index: at, Scale: 4, Disp: -4})
	INCQ(i)
	CMPQ(i, count)
	JLT(LabelRef("slot"))

	MOVQ(index, t)
	MOVL(at.As32(), Mem{Base: t, Index: i, Scale: 4})
	Load(Param("job"), key)
	MOVQ(hidden, job(jobHidden))
	MOVQ(other, job(jobOther))
	RET()
}

func hide() {
	TEXT("hideAVO", NOSPLIT, "func(job *uint64)")
	Pragma("noescape")
	Doc("hideAVO does what hideGeneric does for the slots that layOutAVO has listed; there",
		"is one at least.")
	lists, index, numbers, insns, out, flags, origin := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	k, reserved := GP64(), GP64()
	rules, count := AllocLocal(8), AllocLocal(8)
	t := GP64()
	Load(Param("job"), t)
	for _, l := range []struct {
		at int
		r  reg.GPVirtual
	}{
		{jobLists, lists}, {jobIndex, index}, {jobNumbers, numbers}, {jobInsns, insns}, {jobOut, out},
		{jobNewFlags, flags}, {jobNewOrigin, origin},
	} {
		MOVQ(Mem{Base: t, Disp: l.at}, l.r)
	}
	MOVQ(Mem{Base: t, Disp: jobRules}, k)
	MOVQ(k, rules)
	MOVQ(Mem{Base: t, Disp: jobHidden}, k)
	MOVQ(k, count)
	XORL(k.As32(), k.As32())
	XORL(reserved.As32(), reserved.As32())

	Label("hide")
	i, rule, at, number, v, own := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Comment("i = the slot; rule = &rules[its rule]; at = index[i]")
	MOVBLZX(Mem{Base: lists, Index: k, Scale: 1, Disp: listHidden}, i.As32())
	MOVBLZX(Mem{Base: lists, Index: i, Scale: 1, Disp: listRules}, rule.As32())
	SHLL(U8(ruleShift), rule.As32())
	ADDQ(rules, rule)
	MOVL(Mem{Base: index, Index: i, Scale: 4}, at.As32())
	slot := func(at reg.GPVirtual, disp int) Mem { return Mem{Base: out, Index: at, Scale: 8, Disp: disp} }
	Comment("out[at] = Mov | number^imm; out[at+1] = Xor | number")
	MOVL(Mem{Base: numbers, Index: k, Scale: 4}, number.As32())
	MOVL(Mem{Base: insns, Index: i, Scale: 8, Disp: insnImm}, v.As32())
	XORL(number.As32(), v.As32())
	MOVL(v.As32(), slot(at, insnImm))
	MOVL(number.As32(), slot(at, 8+insnImm))
	MOVL(Mem{Base: rule, Disp: ruleMov}, v.As32())
	MOVL(v.As32(), slot(at, 0))
	MOVL(Mem{Base: rule, Disp: ruleXor}, v.As32())
	MOVL(v.As32(), slot(at, 8))
	Comment("The instruction reads AX instead of imm.")
	MOVL(Mem{Base: rule, Disp: ruleOwn}, own.As32())
	ADDQ(at, own)
	MOVBLZX(slot(own, insnRegs), v.As32())
	ANDL(U8(15), v.As32())
	ORL(U32(ax<<4), v.As32())
	MOVB(v.As8(), slot(own, insnRegs))
	MOVBLZX(Mem{Base: rule, Disp: ruleOp}, v.As32())
	MOVB(v.As8(), slot(own, 0))
	MOVL(U32(0), slot(own, insnImm))
	MOVWLZX(slot(own, insnOff), v.As32())
	ANDW(Mem{Base: rule, Disp: ruleReserved}, v.As16())
	ORL(v.As32(), reserved.As32())
	Comment("Both are inserted, and come from where it does.")
	MOVW(U16(inserted<<8|inserted), Mem{Base: flags, Index: at, Scale: 1})
	MOVL(Mem{Base: origin, Index: own, Scale: 4}, v.As32())
	MOVL(v.As32(), Mem{Base: origin, Index: at, Scale: 4})
	MOVL(v.As32(), Mem{Base: origin, Index: at, Scale: 4, Disp: 4})
	INCQ(k)
	CMPQ(k, count)
	JLT(LabelRef("hide"))
	Load(Param("job"), t)
	MOVQ(reserved, Mem{Base: t, Disp: jobReserved})
	RET()
}
