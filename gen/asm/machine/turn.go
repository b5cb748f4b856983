package main

import (
	"log"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// takeTurn takes the Turn at AX by plain stores if this goroutine owns it, and
// goes on behind itself. Everything else is the work of otherTurn, which must be
// in the same function. Turn says why this is enough. It changes CX and DX.
func takeTurn() {
	owner, held := mem(reg.RDX, ownerG), mem(reg.RDX, ownerHeld)
	raw("MOVQ", operand.LabelRef("(TLS)"), reg.RCX) // the goroutine
	MOVQ(mem(reg.RAX, turnOwner), reg.RDX)
	TESTQ(reg.RDX, reg.RDX)
	JZ(operand.LabelRef("foreign"))
	CMPQ(reg.RCX, owner)
	JNE(operand.LabelRef("foreign"))
	CMPL(held, operand.Imm(heldNot))
	JNE(operand.LabelRef("refused")) // by itself: this is a run within a run
	MOVL(operand.U32(heldTaking), held)
	CMPQ(reg.RCX, owner) // again
	JNE(operand.LabelRef("evicted"))
	MOVL(operand.U32(heldFully), held)
}

// otherTurn locks the Turn at AX, or answers that somebody else has locked, and
// whether that is settled.
func otherTurn() {
	Label("evicted")
	MOVL(operand.U32(heldNot), mem(reg.RDX, ownerHeld))
	Label("foreign")
	MOVQ(reg.RAX, reg.RBX)
	XORL(reg.EAX, reg.EAX)
	raw("LOCK")
	CMPXCHGQ(reg.RCX, mem(reg.RBX, turnHolder))
	JNE(operand.LabelRef("other"))
	answer(wayLocked)
	Label("other")
	TESTQ(operand.U32(holderSettled), reg.RAX) // the holder
	JNZ(operand.LabelRef("refused"))
	answer(wayUnsettled)
	Label("refused")
	answer(wayRefused)
}

// setWay stores the result way.
func setWay(way uint8) {
	result, err := Return("way").Resolve()
	if err != nil {
		log.Fatal(err)
	}
	MOVB(operand.U8(way), result.Addr)
}

// answer ends a function with a machine.Way.
func answer(way uint8) {
	setWay(way)
	RET()
}

func take() {
	TEXT("take", flags, "func(turn *uint64) (way uint8)")
	align.Line()
	Pragma("noescape")
	Doc("take tries to take a Turn. The answer is Taken, Refused, locked, or unsettled.")
	Load(Param("turn"), reg.RAX)
	takeTurn()
	answer(wayTaken)
	otherTurn()
}

func end() {
	TEXT("end", flags, "func(turn *uint64)")
	align.Line()
	Pragma("noescape")
	Doc("end gives a Turn back that the caller has: by a plain store.")
	Load(Param("turn"), reg.RAX)
	MOVQ(mem(reg.RAX, turnOwner), reg.RDX)
	TESTQ(reg.RDX, reg.RDX)
	JZ(operand.LabelRef("lock"))
	CMPL(mem(reg.RDX, ownerHeld), operand.Imm(heldFully))
	JNE(operand.LabelRef("lock"))
	MOVL(operand.U32(heldNot), mem(reg.RDX, ownerHeld))
	RET()
	Label("lock")
	MOVQ(operand.U32(0), mem(reg.RAX, turnHolder))
	RET()
}
