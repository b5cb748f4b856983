// Command machine generates the assembly of package machine: the way into
// generated code, the ways out of it, and the signal handlers.
package main

import (
	"log"
	"math/bits"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// Every function leaves the stack as it is and never calls Go: a goroutine in
// generated code is at no safe point, and nothing may look for one here.
const flags = attr.NOSPLIT | attr.NOFRAME

// stackHeadroom is what stays free above the first return address.
const stackHeadroom = 64

// nativeReach bounds how far below the Context a stack pointer of generated
// code can be: the native stack, and the guard below it.
const nativeReach = 0x20000

// x86 gives the registers by their number, as Context.Regs has them.
var x86 = [16]reg.Register{
	reg.RAX, reg.RCX, reg.RDX, reg.RBX, reg.RSP, reg.RBP, reg.RSI, reg.RDI,
	reg.R8, reg.R9, reg.R10, reg.R11, reg.R12, reg.R13, reg.R14, reg.R15,
}

const (
	rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi = 0, 1, 2, 3, 4, 5, 6, 7
	r8, r9, r10, r11, r12, r13, r14, r15   = 8, 9, 10, 11, 12, 13, 14, 15
)

// ucontext gives the offset of each register in a ucontext_t
// (sys/ucontext.h), by its number.
var ucontext = [16]int{
	rax: 144, rcx: 152, rdx: 136, rbx: 128, rsp: 160, rbp: 120, rsi: 112, rdi: 104,
	r8: 40, r9: 48, r10: 56, r11: 64, r12: 72, r13: 80, r14: 88, r15: 96,
}

const (
	ucontextRIP    = 168
	ucontextRFlags = 176

	// plainFlags are flags that suit everybody: interrupts on, as always,
	// strings upward, no single step.
	plainFlags = 0x202

	siginfoCode = 8
	siginfoAddr = 16
)

var abiConstants = constants("../abi")

// abi returns a constant of package abi.
func abi(name string) int {
	v, ok := abiConstants[name]
	if !ok {
		log.Fatalf("package abi has no %s", name)
	}
	return v
}

// context is a field of the Context, by its constant in package abi. base
// holds the address of the window.
func context(base reg.Register, field string) operand.Mem {
	return operand.Mem{Base: base, Disp: abi("ContextOffset") + abi(field)}
}

// saved is the place of a register in the Context.
func saved(base reg.Register, n int) operand.Mem {
	m := context(base, "OffRegs")
	m.Disp += 8 * n
	return m
}

func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

func symbol(name string) operand.Mem {
	return operand.Mem{Symbol: operand.Symbol{Name: "·" + name}, Base: reg.StaticBase}
}

// raw emits what avo has no constructor for, or refuses: writes to BP in
// functions without a frame, calls and jumps through registers and memory.
func raw(opcode string, operands ...operand.Op) {
	Instruction(&ir.Instruction{Opcode: opcode, Operands: operands})
}

// jump ends a function with a jump through a register or memory.
func jump(to operand.Op) {
	Instruction(&ir.Instruction{Opcode: "JMP", Operands: []operand.Op{to}, IsTerminal: true})
}

func main() {
	ConstraintExpr("linux")
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")
	take()
	end()
	dash()
	enter()
	resume()
	resumeAll()
	helperStub()
	helperExit()
	nativeLookup()
	nativeCPU()
	sliceStub()
	faultExit()
	onFault()
	onSample()
	addresses()

	Generate()
}

// leaveGo notes where the goroutine's stack is. R12 holds the base.
func leaveGo() {
	MOVQ(reg.RSP, context(reg.R12, "OffGoSP"))
	MOVQ(reg.RBP, context(reg.R12, "OffGoBP"))
}

// backToGo returns to the driver that called enter, resume or resumeAll last.
func backToGo() {
	ontoGoStack()
	RET()
}

// exitToGo does the same from a stub that generated code called. The
// processor expects the return from that call, so a RET would be mispredicted,
// and the next one, out of resume's wrapper, as well. A jump is predicted by
// where it went last time. (A helper's round trip took 17.6 ns with RET, and
// 9.4 ns like this.)
func exitToGo(exit string) {
	MOVQ(operand.U32(uint32(abi(exit))), context(reg.R12, "OffExit"))
	ontoGoStack()
	raw("MOVQ", mem(reg.RSP, 0), reg.R11)
	raw("ADDQ", operand.Imm(8), reg.RSP)
	jump(reg.R11)
}

func ontoGoStack() {
	raw("MOVQ", context(reg.R12, "OffGoSP"), reg.RSP)
	raw("MOVQ", context(reg.R12, "OffGoBP"), reg.RBP)
}

// callCode calls the code of the Frame at AX, whose base is in R12, on the native
// stack, with what DI and SI hold and otherwise empty registers. RAX and R9 are
// what is left of it.
func callCode() {
	MOVQ(mem(reg.RAX, frameEntry), reg.R11)
	MOVQ(mem(reg.RAX, frameSlice), reg.R9)
	leaveGo()
	raw("LEAQ", mem(reg.R12, abi("ContextOffset")-stackHeadroom), reg.RSP)
	for _, r := range []int{rax, rcx, rdx, rbx, r8, r10, r13, r14, r15} {
		clearReg(r)
	}
	raw("MOVL", operand.U32(uint32(abi("StackTop"))), reg.RBP)
	raw("CALL", reg.R11)
}

// done tells the driver that code returned. That is the caller of enter, or of
// resume or resumeAll if code has left since.
func done() {
	MOVQ(reg.RAX, saved(reg.R12, rax))
	MOVQ(reg.R9, saved(reg.R12, r9))
	MOVQ(operand.U32(uint32(abi("ExitDone"))), context(reg.R12, "OffExit"))
	backToGo()
}

func enter() {
	TEXT("enter", flags, "func(frame *uint64, r1, r2 uint64)")
	align.Line()
	Pragma("noescape")
	Doc(
		"enter calls generated code with empty registers on the native stack of a",
		"window. It returns when that code returns or leaves by a stub or a fault;",
		"Context.Exit says which.",
		"",
		"	goroutine stack          native stack",
		"	+----------------+       +-----------------+",
		"	| r2  r1  frame  |       | 64 bytes, free  |",
		"	| return address | GoSP  | return address  | of the CALL",
		"	+----------------+       | ...generated... |",
	)
	Load(Param("frame"), reg.RAX)
	Load(Param("r1"), reg.RDI)
	Load(Param("r2"), reg.RSI)
	MOVQ(mem(reg.RAX, frameBase), reg.R12)
	callCode()
	done()
}

func dash() {
	TEXT("dash", flags, "func(frame *uint64, key uintptr) (r0 uint64, way uint8)")
	align.Line()
	Pragma("noescape")
	Doc(
		"dash takes the Turn of a Frame, enters code with R1 and R2 zero, and gives the",
		"Turn back, as far as that goes: way says how far.",
	)
	Load(Param("frame"), reg.RAX)
	takeTurn()
	Load(Param("key"), reg.RDX)
	CMPQ(reg.RDX, mem(reg.RAX, frameKey))
	JNE(operand.LabelRef("taken"))
	setWay(wayLeft) // the stubs return to our caller
	clearReg(rdi)
	clearReg(rsi)
	MOVQ(mem(reg.RAX, frameBase), reg.R12)
	MOVQ(operand.U32(uint32(abi("ExitDone"))), context(reg.R12, "OffExit"))
	callCode()
	// If there was an exit, the caller of resume or resumeAll waits, not ours.
	CMPQ(context(reg.R12, "OffExit"), operand.Imm(uint64(abi("ExitDone"))))
	JNE(operand.LabelRef("resumed"))
	ontoGoStack()
	Store(reg.RAX, Return("r0"))
	Load(Param("frame"), reg.RBX)
	MOVQ(mem(reg.RBX, frameSlice), reg.RCX)
	SUBQ(reg.R9, reg.RCX)
	MOVQ(reg.RCX, mem(reg.RBX, frameUsed))
	CMPL(mem(reg.RBX, frameDirty), operand.Imm(0))
	JNE(operand.LabelRef("ended"))
	MOVQ(mem(reg.RBX, turnOwner), reg.RDX)
	MOVL(operand.U32(heldNot), mem(reg.RDX, ownerHeld))
	answer(wayOver)
	Label("ended")
	answer(wayEnded)
	Label("resumed")
	done()
	Label("taken")
	answer(wayTaken)
	otherTurn()
}

func clearReg(n int) {
	r := x86[n].(reg.GP).As32()
	XORL(r, r)
}

func resume() {
	TEXT("resume", flags, "func(base uintptr, r0 uint64)")
	align.Line()
	Doc(
		"resume goes on behind the call of a helper, whose result is r0. R1 to R5 are",
		"zero; what a function must keep is as the helper's stub found it.",
	)
	Load(Param("base"), reg.R12)
	Load(Param("r0"), reg.RAX)
	leaveGo()
	for _, r := range []int{rbx, rbp, r9, r13, r14, r15} {
		raw("MOVQ", saved(reg.R12, r), x86[r])
	}
	for _, r := range []int{rcx, rdx, rsi, rdi, r8} {
		clearReg(r)
	}
	raw("MOVQ", saved(reg.R12, rsp), reg.RSP)
	jump(context(reg.R12, "OffRIP"))
}

func resumeAll() {
	TEXT("resumeAll", flags, "func(base uintptr)")
	align.Line()
	Doc("resumeAll goes on at Context.RIP with all registers and flags from the Context.")
	Load(Param("base"), reg.R12)
	leaveGo()
	raw("MOVQ", saved(reg.R12, rsp), reg.RSP)
	// The flags travel over the native stack: generated code keeps nothing
	// below its stack pointer.
	raw("PUSHQ", context(reg.R12, "OffRFlags"))
	raw("POPFQ")
	for r := range x86 {
		if r != rsp && r != r12 {
			raw("MOVQ", saved(reg.R12, r), x86[r])
		}
	}
	jump(context(reg.R12, "OffRIP"))
}

// saveCaller notes where a stub was called from, by way of scratch.
//
//	RSP -> return address     becomes Context.RIP
//	       caller's stack     becomes Context.Regs[RSP]
func saveCaller(scratch reg.Register) {
	raw("MOVQ", mem(reg.RSP, 0), scratch)
	raw("MOVQ", scratch, context(reg.R12, "OffRIP"))
	raw("LEAQ", mem(reg.RSP, 8), scratch)
	raw("MOVQ", scratch, saved(reg.R12, rsp))
}

func helperStub() {
	TEXT("helperStub", flags, "func()")
	align.Line()
	Doc(
		"helperStub is where generated code calls for a helper, its number in EAX. It",
		"goes on by the table Context.Native: to native code, or to helperExit. A number",
		"beyond the table becomes the last one by a conditional move, so that no branch",
		"can be predicted past its bound.",
	)
	MOVL(operand.U32(uint32(abi("NativeHelpers"))), reg.R10L)
	CMPL(reg.EAX, reg.R10L)
	CMOVLCS(reg.EAX, reg.R10L)
	table := context(reg.R12, "OffNative")
	table.Index, table.Scale = reg.R10, 8
	jump(table)
}

func helperExit() {
	TEXT("helperExit", flags, "func()")
	align.Line()
	Doc(
		"helperExit leaves for a helper in Go, its number in EAX. It saves the arguments",
		"and what a function must keep.",
	)
	MOVQ(reg.RAX, context(reg.R12, "OffHelper"))
	saveCaller(reg.R10)
	for _, r := range []int{rdi, rsi, rdx, rcx, r8, rbx, rbp, r9, r13, r14, r15} {
		MOVQ(x86[r], saved(reg.R12, r))
	}
	exitToGo("ExitHelper")
}

// Native helpers are helpers that stay on the native stack. R10 and R11 are
// free; whatever else they change they change behind the last jump to
// helperExit, which takes the call over as if it had come there. They touch
// nothing that could fault.

// endNative is the end of a native helper, its result in RAX: R1 to R5 are 0
// behind every call.
func endNative() {
	for _, r := range []int{rcx, rdx, rsi, rdi, r8} {
		clearReg(r)
	}
	RET()
}

func nativeLookup() {
	TEXT("nativeLookup", flags, "func()")
	align.Line()
	Doc(
		"nativeLookup is map_lookup_elem for arrays, the map's handle in RDI and the",
		"address of the key in RSI. What is no array, and a key outside of the BPF",
		"stack, is left to Go.",
		"",
		"	handle = HandleBase + index * HandleStep",
		"	value  = Base + key * Step, if key < Limit",
	)
	// Rotated, what is no multiple of HandleStep is large.
	LEAQ(mem(reg.RDI, -abi("HandleBase")), reg.R11)
	RORQ(operand.Imm(uint64(bits.TrailingZeros(uint(abi("HandleStep"))))), reg.R11)
	CMPQ(reg.R11, context(reg.R12, "OffMaps"))
	JAE(operand.LabelRef("exit"))
	// Where that is mispredicted, nothing outside of the table may be read:
	// all else that a program can make the processor read lies in its window.
	ANDL(operand.U32(uint32(abi("NativeMaps")-1)), reg.R11L)
	LEAL(mem(reg.RSI, -abi("StackBase")), reg.R10L)
	CMPL(reg.R10L, operand.U32(uint32(abi("StackSize")-4)))
	JA(operand.LabelRef("exit"))
	key := mem(reg.R12, abi("StackBase"))
	key.Index, key.Scale = reg.R10, 1
	MOVL(key, reg.R10L)
	SHLQ(operand.Imm(uint64(bits.TrailingZeros(uint(abi("ArraySize"))))), reg.R11)
	field := func(name string) operand.Mem {
		m := context(reg.R12, "OffArrays")
		m.Disp += abi(name)
		m.Index, m.Scale = reg.R11, 1
		return m
	}
	CMPL(reg.R10L, field("OffLimit"))
	JAE(operand.LabelRef("absent"))
	IMULL(field("OffStep"), reg.R10L)
	ADDL(field("OffBase"), reg.R10L)
	MOVL(reg.R10L, reg.EAX)
	endNative()
	Label("absent")
	CMPL(field("OffLimit"), operand.Imm(0))
	JEQ(operand.LabelRef("exit"))
	clearReg(rax)
	endNative()
	Label("exit")
	jump(operand.LabelRef("·helperExit(SB)"))
}

func nativeCPU() {
	TEXT("nativeCPU", flags, "func()")
	align.Line()
	Doc("nativeCPU is get_smp_processor_id.")
	MOVQ(context(reg.R12, "OffCPU"), reg.RAX)
	endNative()
}

func sliceStub() {
	TEXT("sliceStub", flags, "func()")
	align.Line()
	Doc(
		"sliceStub is where generated code calls when its slice is spent. It saves all",
		"registers. The flags are free there.",
	)
	for r := range x86 {
		if r != rsp && r != r12 {
			MOVQ(x86[r], saved(reg.R12, r))
		}
	}
	saveCaller(reg.RAX)
	MOVQ(operand.U32(plainFlags), context(reg.R12, "OffRFlags"))
	exitToGo("ExitSlice")
}

func faultExit() {
	TEXT("faultExit", flags, "func()")
	align.Line()
	Doc(
		"faultExit is where onFault leads a thread, on the native stack and with R12",
		"as it was. The Context is filled already.",
	)
	// vet takes a function without a frame that writes BP before it reads it
	// for one that forgot to save it.
	raw("CMPQ", reg.RBP, operand.Imm(0))
	backToGo()
}

// onNativeStack goes to no unless the thread that was interrupted, whose
// ucontext is in DX, is on the native stack of a window. R12 holds the base of
// a window from before the stack is switched until after it is switched back,
// and no Go code runs in between:
//
//	no unless R12 is a multiple of 4 GiB
//	  and RSP is less than nativeReach below the Context at R12
//	  and that Context leads to our helperStub
//
// The last proves the others: R12 in Go code may hold anything. What it reads
// lies close above that thread's stack. It leaves R12 in R9 and changes AX.
func onNativeStack(no string) {
	MOVQ(mem(reg.RDX, ucontext[r12]), reg.R9)
	TESTL(reg.R9L, reg.R9L)
	JNZ(operand.LabelRef(no))
	LEAQ(mem(reg.R9, abi("ContextOffset")), reg.RAX)
	SUBQ(mem(reg.RDX, ucontext[rsp]), reg.RAX)
	CMPQ(reg.RAX, operand.U32(nativeReach))
	JAE(operand.LabelRef(no))
	LEAQ(symbol("helperStub"), reg.RAX)
	CMPQ(reg.RAX, context(reg.R9, "OffHelperStub"))
	JNE(operand.LabelRef(no))
}

// chain goes on in the handler that was there before ours, as if the signal
// had come there: DI, SI, DX and the stack are untouched.
func chain() {
	LEAQ(symbol("previous"), reg.RAX)
	MOVQ(operand.Mem{Base: reg.RAX, Index: reg.RDI, Scale: 8}, reg.RAX)
	jump(reg.RAX)
}

func onFault() {
	TEXT("onFault", flags, "func()")
	align.Line()
	Doc(
		"onFault handles the signals that faults raise. If the thread was in generated",
		"code it fills the Context and leads the thread to faultExit. Everything else,",
		"and what was sent by kill(2), is the previous handler's.",
		"It gets signal, siginfo and ucontext in DI, SI and DX.",
	)
	MOVL(mem(reg.RSI, siginfoCode), reg.ECX)
	TESTL(reg.ECX, reg.ECX)
	JLE(operand.LabelRef("sent"))
	onNativeStack("chain")
	MOVQ(operand.U32(uint32(abi("ExitFault"))), context(reg.R9, "OffExit"))
	MOVL(reg.EDI, reg.EDI)
	MOVQ(reg.RDI, context(reg.R9, "OffSignal"))
	MOVQ(reg.RCX, context(reg.R9, "OffCode"))
	copyTo := func(from, to operand.Mem) {
		MOVQ(from, reg.RAX)
		MOVQ(reg.RAX, to)
	}
	copyTo(mem(reg.RSI, siginfoAddr), context(reg.R9, "OffFaultAddr"))
	copyTo(mem(reg.RDX, ucontextRIP), context(reg.R9, "OffRIP"))
	copyTo(mem(reg.RDX, ucontextRFlags), context(reg.R9, "OffRFlags"))
	for r := range x86 {
		copyTo(mem(reg.RDX, ucontext[r]), saved(reg.R9, r))
	}
	LEAQ(symbol("faultExit"), reg.RAX)
	MOVQ(reg.RAX, mem(reg.RDX, ucontextRIP))
	MOVQ(operand.U32(plainFlags), mem(reg.RDX, ucontextRFlags))
	RET()
	Label("sent")
	jump(operand.LabelRef("·onSample(SB)"))
	Label("chain")
	chain()
}

func onSample() {
	TEXT("onSample", flags, "func()")
	align.Line()
	Doc(
		"onSample handles signals whose handler in Go walks the stack of the thread. If",
		"that was in generated code, the handler is shown the driver instead: the",
		"place that enter, resume or resumeAll was called from.",
		"It gets signal, siginfo and ucontext in DI, SI and DX.",
	)
	shown := []int{ucontextRIP, ucontext[rsp], ucontext[rbp]}
	onNativeStack("chain")
	raw("PUSHQ", reg.RBX)
	MOVQ(reg.RDX, reg.RBX)
	for _, off := range shown {
		raw("PUSHQ", mem(reg.RBX, off))
	}
	raw("PUSHQ", reg.RBX) // the handler wants the stack 16-aligned
	MOVQ(context(reg.R9, "OffGoSP"), reg.RCX)
	MOVQ(mem(reg.RCX, 0), reg.RAX)
	MOVQ(reg.RAX, mem(reg.RBX, ucontextRIP))
	ADDQ(operand.Imm(8), reg.RCX)
	MOVQ(reg.RCX, mem(reg.RBX, ucontext[rsp]))
	MOVQ(context(reg.R9, "OffGoBP"), reg.RAX)
	MOVQ(reg.RAX, mem(reg.RBX, ucontext[rbp]))
	LEAQ(symbol("previous"), reg.RAX)
	MOVQ(operand.Mem{Base: reg.RAX, Index: reg.RDI, Scale: 8}, reg.RAX)
	raw("CALL", reg.RAX)
	raw("POPQ", reg.RBX)
	for i := len(shown) - 1; i >= 0; i-- {
		raw("POPQ", mem(reg.RBX, shown[i]))
	}
	raw("POPQ", reg.RBX)
	RET()
	Label("chain")
	chain()
}

func addresses() {
	TEXT("addresses", flags, "func() (helper, slice, fault, sample, exit, lookup, cpu uintptr)")
	align.Line()
	Doc("addresses returns where the stubs, the signal handlers and the native helpers are.")
	for i, f := range []string{"helperStub", "sliceStub", "onFault", "onSample", "helperExit", "nativeLookup", "nativeCPU"} {
		LEAQ(symbol(f), reg.RAX)
		Store(reg.RAX, ReturnIndex(i))
	}
	RET()
}
