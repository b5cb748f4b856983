package abi

// Exit says why machine code came back to its driver.
type Exit uint64

const (
	ExitDone   Exit = iota // the main function returned; RAX is R0
	ExitHelper             // call of a helper: number in Context.Helper
	ExitSlice              // the slice is spent; R11 is what was asked for
	ExitFault              // a signal: Signal, Code, FaultAddr, RIP
)

// Context is what machine code shares with its driver. It lies at
// ContextOffset from the window's base, outside of everything a program can
// address. Assembly and generated code use the offsets below; a test pins
// them to the struct.
type Context struct {
	Exit      Exit
	GoSP      uint64 // the goroutine's stack while machine code runs
	GoBP      uint64
	Regs      [16]uint64 // by x86 number: rax rcx rdx rbx rsp rbp rsi rdi r8..r15
	RIP       uint64
	RFlags    uint64
	Helper    uint64 // number of the helper wanted
	Signal    uint64
	Code      uint64 // si_code
	FaultAddr uint64 // si_addr, a host address

	// Where generated code calls: call [r12+disp32].
	HelperStub uint64
	SliceStub  uint64

	// Native is where HelperStub goes on, by the helper's number: native
	// code, or the exit to the driver. The last one is the exit, for all
	// numbers from there on.
	Native [NativeHelpers + 1]uint64

	// What native helpers know.
	CPU    uint64 // the number of the processor
	Maps   uint64 // how many of Arrays are filled
	Arrays [NativeMaps]Array
}

const (
	// NativeHelpers bounds the numbers of helpers that can be native code.
	NativeHelpers = 15
	// NativeMaps bounds the indices of the maps that native code knows: a
	// power of two.
	NativeMaps = 128
)

// Array is what native code knows of a map: how many values it has, the guest
// address of the first one, and how far the next one is, in bytes. Limit is 0
// for what isn't an array.
type Array struct {
	Limit, Base, Step uint32
	_                 uint32 // 16 bytes, to be found by a shift
}

// Offsets of the fields of Context, in bytes.
const (
	OffExit       = 0
	OffGoSP       = 8
	OffGoBP       = 16
	OffRegs       = 24
	OffRIP        = 152
	OffRFlags     = 160
	OffHelper     = 168
	OffSignal     = 176
	OffCode       = 184
	OffFaultAddr  = 192
	OffHelperStub = 200
	OffSliceStub  = 208
	OffNative     = 216
	OffCPU        = 344
	OffMaps       = 352
	OffArrays     = 360

	// Of an Array.
	OffLimit  = 0
	OffBase   = 4
	OffStep   = 8
	ArraySize = 16

	// ContextOffset is where a Context begins, from the window's base. It
	// is below the lower guard.
	ContextOffset = -0x20000
)

// x86 registers by their number, the index into Context.Regs.
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	X86R8
	X86R9
	X86R10
	X86R11
	X86R12
	X86R13
	X86R14
	X86R15
)

// Native gives the x86 register of each BPF register, R0 to AX.
//
//	R0  R1  R2  R3  R4  R5 R6  R7  R8  R9  R10 AX
//	rax rdi rsi rdx rcx r8 rbx r13 r14 r15 rbp r10
//
// In the cage r12 holds the window's base and r9 what is left of the slice;
// r11 is scratch.
var Native = [12]uint8{RAX, RDI, RSI, RDX, RCX, X86R8, RBX, X86R13, X86R14, X86R15, RBP, X86R10}
