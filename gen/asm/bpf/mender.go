package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// follower is what mendSlotsAVO works with.
type follower struct {
	insns, np, index, reaches, late reg.GPVirtual
	set, slot, to, own, t           reg.GPVirtual
	known, length                   Mem
}

func mendSlots() {
	TEXT("mendSlotsAVO", NOSPLIT, "func(insns, np *uint64, index *int32, late *int32, reaches *uint8, jumps *uint64, words, first, known, length int) (lates int, ok bool)")
	align.Line()
	Pragma("noescape")
	Doc("mendSlotsAVO does what Mender.addGeneric does with some words of jumps, and lists what is",
		"late, for which there is room. If something is wrong, it stops and isn't ok.")
	param := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	stack := func(name string) Mem {
		c, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return c.Addr
	}
	f := follower{
		insns: param("insns"), np: param("np"), index: param("index"), reaches: param("reaches"), late: param("late"),
		set: GP64(), slot: GP64(), to: GP64(), own: GP64(), t: GP64(),
		known: stack("known"), length: stack("length"),
	}
	jumps, base, mark := param("jumps"), param("first"), GP64()

	Label("word")
	MOVQ(Mem{Base: jumps}, f.set)
	MOVQ(f.late, mark)
	TESTQ(f.set, f.set)
	JEQ(LabelRef("end"))
	Comment("The last one must be known.")
	LZCNTQ(f.set, f.t)
	XORQ(U8(63), f.t)
	ADDQ(base, f.t)
	CMPQ(f.t, f.known)
	JGE(LabelRef("wrong"))

	Label("jump")
	f.jump(base)
	Label("next")
	BLSRQ(f.set, f.set)
	JNE(LabelRef("jump"))
	Label("end")
	ADDQ(U8(8), jumps)
	ADDQ(U8(64), base)
	DECQ(stack("words"))
	JNE(LabelRef("word"))
	MOVQ(f.late, mark)
	MOVQ(U32(1), f.t)
	JMP(LabelRef("out"))

	Label("late")
	MOVL(f.slot.As32(), Mem{Base: f.late})
	ADDQ(U8(4), f.late)
	JMP(LabelRef("next"))

	Label("wrong")
	XORL(f.t.As32(), f.t.As32())
	Label("out")
	SUBQ(stack("late"), mark)
	SHRQ(U8(2), mark)
	Store(mark, Return("lates"))
	Store(f.t.As8(), Return("ok"))
	RET()
}

// jump sets the distance of what the next slot of a word became.
func (f *follower) jump(base reg.Register) {
	off := func(insns, at reg.Register, disp int) Mem {
		return Mem{Base: insns, Index: at, Scale: 8, Disp: disp}
	}
	place := func(slot reg.Register, disp int) Mem {
		return Mem{Base: f.index, Index: slot, Scale: 4, Disp: disp}
	}
	reach := func(op reg.Register) Mem { return Mem{Base: f.reaches, Index: op, Scale: 1} }
	jump(f.insns, base, f.set, f.slot, f.to)
	Comment("own = index[slot+1] - 1")
	MOVL(place(f.slot, 4), f.own.As32())
	DECL(f.own.As32())
	CMPQ(f.own, f.length)
	JAE(LabelRef("wrong"))
	CMPQ(f.to, f.known)
	JAE(LabelRef("late"))
	Comment("Both have a distance in off?")
	MOVBLZX(off(f.insns, f.slot, 0), f.t.As32())
	d := GP64()
	MOVBLZX(off(f.np, f.own, 0), d.As32())
	MOVBLZX(reach(f.t), f.t.As32())
	ANDB(reach(d), f.t.As8())
	CMPB(f.t.As8(), U8(reachOff))
	JNE(LabelRef("late"))
	CMPB(off(f.insns, f.to, 0), U8(0))
	JEQ(LabelRef("late"))
	Comment("np[own].off = index[to] - own - 1")
	MOVLQSX(place(f.to, 0), d)
	SUBQ(f.own, d)
	DECQ(d)
	MOVWQSX(d.As16(), f.t)
	CMPQ(f.t, d)
	JNE(LabelRef("wrong"))
	MOVW(d.As16(), off(f.np, f.own, insnOff))
}
