// Command fill generates the assembly of package image: filling memory with
// traps.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/bpfjit/bpfjit/gen/asm/align"
)

// traps is INT3 eight times.
const traps = 0xcccccccccccccccc

// repFrom is the length, in bytes, from which REP STOSQ is worth its start-up.
const repFrom = 2048

// raw emits an instruction that avo has no constructor for.
func raw(opcode string) { Instruction(&ir.Instruction{Opcode: opcode}) }

func main() {
	ConstraintExpr("amd64")
	ConstraintExpr("!purego")

	TEXT("fillAVO", NOSPLIT, "func(b []byte)")
	align.Line()
	Pragma("noescape")
	Doc("fillAVO sets every byte of b to INT3 (0xcc).")
	// REP STOSQ wants these registers.
	p, n, v := reg.RDI, reg.RCX, reg.RAX
	end, x := reg.RDX, reg.X0
	Load(Param("b").Base(), p)
	Load(Param("b").Len(), n)

	MOVQ(U64(traps), v) // v = cc cc cc cc cc cc cc cc
	LEAQ(Mem{Base: p, Index: n, Scale: 1}, end)
	CMPQ(n, U8(16))                     // if n < 16:
	JB(LabelRef("small"))               //   goto small
	MOVQ(v, x)                          //
	PUNPCKLQDQ(x, x)                    // x = v:v
	MOVOU(x, Mem{Base: end, Disp: -16}) // the last 16 bytes, overlapping
	CMPQ(n, U32(repFrom))               // if n >= repFrom:
	JAE(LabelRef("rep"))                //   goto rep

	Label("loop")          // while n >= 16:
	CMPQ(n, U8(16))        //
	JB(LabelRef("done"))   //
	MOVOU(x, Mem{Base: p}) //   p[0:16] = x
	ADDQ(U8(16), p)        //   p += 16
	SUBQ(U8(16), n)        //   n -= 16
	JMP(LabelRef("loop"))  //

	Label("rep")   //
	SHRQ(U8(3), n) // n /= 8: the rest is written already
	raw("REP")
	raw("STOSQ")          // p[0:8*n] = v v v ...
	JMP(LabelRef("done")) //

	Label("small")         //
	CMPQ(n, U8(8))         // if n >= 8:
	JB(LabelRef("below8")) //   first and last 8, overlapping
	MOVQ(v, Mem{Base: p})  //
	MOVQ(v, Mem{Base: end, Disp: -8})
	JMP(LabelRef("done"))        //
	Label("below8")              //
	CMPQ(n, U8(4))               // if n >= 4:
	JB(LabelRef("below4"))       //   first and last 4, overlapping
	MOVL(v.As32(), Mem{Base: p}) //
	MOVL(v.As32(), Mem{Base: end, Disp: -4})
	JMP(LabelRef("done"))        //
	Label("below4")              //
	TESTQ(n, n)                  // while n > 0:
	JZ(LabelRef("done"))         //
	MOVB(v.As8L(), Mem{Base: p}) //   *p = int3
	INCQ(p)                      //   p++
	DECQ(n)                      //   n--
	JMP(LabelRef("below4"))      //
	Label("done")
	RET()

	Generate()
}
