package interp

// op is a decoded instruction. Operations on a constant and on a register are
// one: both take regs[src] + imm, where src is zeroReg or imm is 0.
type op struct {
	code   code
	dst    uint8
	src    uint8
	size   uint8 // of an access, in bytes
	off    int32 // displacement of an access, or the slot that a jump or a call leads to
	charge int32 // to be taken from the budget before the operation; or traced
	probe  bool  // a load that gives 0 instead of a fault
	count  bool  // a call of a function that counts may_goto
	imm    uint64
}

// traced is the charge of an operation that has none, in a traced program.
const traced = -1

// zeroReg is the index of a register that no instruction can name and that is
// always 0.
const zeroReg = 15

// code says what an operation does.
type code uint8

// Operations of 32 bits follow those of 64 bits in the same order.
const (
	opSecond code = iota // the second half of a 64-bit constant; never executed

	opAdd
	opSub
	opMul
	opDiv
	opSdiv
	opMod
	opSmod
	opOr
	opAnd
	opXor
	opLsh
	opRsh
	opArsh
	opNeg
	opMov
	opMovsx8
	opMovsx16
	opMovsx32

	opAdd32
	opSub32
	opMul32
	opDiv32
	opSdiv32
	opMod32
	opSmod32
	opOr32
	opAnd32
	opXor32
	opLsh32
	opRsh32
	opArsh32
	opNeg32
	opMov32
	opMovsx8w
	opMovsx16w

	opLow16 // le16 and le32: the low bits
	opLow32
	opLow64
	opSwap16 // be and bswap: swapped, and the low bits
	opSwap32
	opSwap64

	opConst // two slots

	opJump
	opJeq
	opJne
	opJgt
	opJge
	opJlt
	opJle
	opJsgt
	opJsge
	opJslt
	opJsle
	opJset

	opJeq32
	opJne32
	opJgt32
	opJge32
	opJlt32
	opJle32
	opJsgt32
	opJsge32
	opJslt32
	opJsle32
	opJset32

	opMayGoto
	opCall   // a function of the program
	opHelper // imm is its number
	opCallx  // dst holds its number
	opExit

	opLoad
	opLoadSigned
	opStore
	opLoadAcquire
	opStoreRelease
	opAtomicAdd // the atomics leave dst and src alone,
	opAtomicOr
	opAtomicAnd
	opAtomicXor
	opFetchAdd // these write what was there to src,
	opFetchOr
	opFetchAnd
	opFetchXor
	opExchange
	opCompareExchange // and this one to R0
)

// wide is the distance between an operation of 64 bits and that of 32.
const (
	wideALU = opAdd32 - opAdd
	wideJmp = opJeq32 - opJeq
)
