package abi

// The guest's address plan. A guest address is an offset of 32 bits into a
// window of 4 GiB; the machine adds a signed 16-bit offset without wrapping,
// so guards of 64 KiB on both sides catch what leaves the window.
//
//	  host                                                    guest
//	+----------------------------------------------+
//	| native stack, guard below                    |
//	| Context (one page)                           |  ContextOffset
//	| guard                                        |
//	+----------------------------------------------+  <- window base (R12)
//	| null region, never mapped                    |  0
//	| BPF stack: eight frames                      |  StackBase
//	| context structure, such as xdp_md            |  CtxBase
//	| packet or caller's memory                    |  MemBase
//	| handles of maps and functions, never mapped  |  HandleBase
//	+----------------------------------------------+
//	| maps and globals, shared by a Space          |  SharedBase
//	+----------------------------------------------+
//	| guard                                        |  WindowSize
//	+----------------------------------------------+
//
// Everything below SharedBase is private to an instance. All regions are
// multiples of PageSize on every platform; the slack behind an object reads
// as zero.
const (
	PageSize   = 4096
	WindowSize = 1 << 32
	GuardSize  = 64 << 10

	StackBase = 0x0001_0000
	StackSize = 0x2000 // MaxFrames*FrameSize rounded up to pages
	StackTop  = StackBase + StackSize

	CtxBase = 0x0002_0000
	CtxSize = 0x1000

	MemBase = 0x0010_0000
	MemMax  = 0x4000_0000 // bytes; the largest packet or memory of a run

	HandleBase  = 0x7000_0000
	HandleLimit = 0x8000_0000
	// HandleStep separates handles, so that no small arithmetic on one
	// makes another.
	HandleStep = 0x1000
	// FuncHandleBase divides the handles: maps are below it, functions of
	// the program begin at it. MaxHandles is the number of each.
	FuncHandleBase = HandleBase + (HandleLimit-HandleBase)/2
	MaxHandles     = (FuncHandleBase - HandleBase) / HandleStep

	SharedBase = 0x8000_0000
	SharedMax  = 0x7fff_0000 // bytes
)

// Frames of the guest stack. R10 of the main program is StackTop; each call
// of a BPF function moves it down by FrameSize.
//
//	R10 ->     +----------------------------+
//	           | 512 bytes of the function  |
//	R10 - 512  +----------------------------+
//	           | may_goto counter, reserved |
//	R10 - 528  +----------------------------+ <- R10 of the callee
const (
	FrameBytes    = 512 // what a function may use
	FrameSize     = 528
	MaxFrames     = 8
	MayGotoOffset = -520    // from R10: the counter, 8 bytes
	MayGotoCount  = 8 << 20 // iterations granted to a function invocation
)

// Budgets, in executed source instructions.
const (
	Slice         = 1 << 16 // dealt out at a time
	SliceCalls    = 256     // calls of helpers, which may take long, end a slice too
	DefaultBudget = 1 << 30
)

// MaxTailCalls is the number of tail calls a run may make.
const MaxTailCalls = 33

// MapHandle returns the handle of a map by its index, 0 to MaxHandles-1.
func MapHandle(i int) uint64 { return HandleBase + uint64(i)*HandleStep }

// FuncHandle returns the handle of a function of the program by its index in
// the program's list of functions, 0 to MaxHandles-1.
func FuncHandle(i int) uint64 { return FuncHandleBase + uint64(i)*HandleStep }

// MapIndex returns the index of the map that a handle stands for. Only the
// very value that MapHandle made is a handle.
func MapIndex(handle uint64) (int, bool) {
	o := handle - HandleBase
	if o >= FuncHandleBase-HandleBase || o%HandleStep != 0 {
		return 0, false
	}
	return int(o / HandleStep), true
}
