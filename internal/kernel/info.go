package kernel

import "github.com/bpfjit/bpfjit/abi"

// Info is what BPF_OBJ_GET_INFO_BY_FD tells of a program.
type Info struct {
	Type Type
	ID   uint32
	Tag  [8]byte
	Name string
	// Xlated is the program after the verifier, as the kernel shows it: all
	// functions one behind the other, some opcodes hidden.
	Xlated []abi.Insn
	// Jited is the machine code of all functions, one behind the other.
	Jited []byte
	// Addrs and Lens are the address and the length of each function's code.
	Addrs []uint64
	Lens  []uint32
	// MapIDs of the maps that the program refers to.
	MapIDs []uint32
	// VerifiedInsns is how many instructions the verifier walked through.
	VerifiedInsns uint32
	// Funcs are the functions' first slots in Xlated; nil without debug
	// information.
	Funcs []FuncInfo
	// Lines tells where the code of an instruction is; nil without debug
	// information. It is sorted by Slot.
	Lines []LineInfo
}

// FuncInfo is where a function begins.
type FuncInfo struct {
	Slot   int // in Info.Xlated
	TypeID uint32
}

// LineInfo connects a translated slot with its source and its machine code.
type LineInfo struct {
	Slot   int    // in Info.Xlated
	Source int    // slot of the loaded program
	Addr   uint64 // of the machine code
}
