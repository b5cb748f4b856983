package kernel

import "github.com/bpfjit/bpfjit/abi"

// A backward jump of 16 bits that ends up at -32767 or -32768 when constant
// blinding rewrites it wraps round, and the kernel runs wild. Where a jump
// ends up is not plain from the source: the verifier and blinding insert
// instructions into its span. So each spanned slot counts for the most that
// they make of it, which refuses harmless programs too; but only while
// bpf_jit_harden is set.
const (
	dangerAt       = 32000
	growBlinding   = 4  // slots that blinding makes of one, or of half an ldimm64
	growDivision   = 10 // guards of DIV and MOD, both arms of signed ones
	growCall       = 32 // inlined helpers
	growAccess     = 8  // accesses to a context
	growMayGoto    = 12
	growEverything = 1
)

// growth is the greatest number of slots that a slot may become.
func growth(in abi.Insn) int {
	g := growEverything
	switch in.Op & abi.ClassMask {
	case abi.ClassALU, abi.ClassALU64:
		if op := in.Op & abi.OpMask; op == 0x30 || op == 0x90 {
			g = growDivision
		}
	case abi.ClassLDX, abi.ClassST, abi.ClassSTX:
		g = growAccess
	case abi.ClassJMP:
		switch in.Op {
		case abi.OpCall:
			g = growCall
		case abi.OpMayGoto:
			g = growMayGoto
		}
	}
	return g * growBlinding
}

// dangerous says whether a program may have such a jump once it is rewritten.
func dangerous(insns []abi.Insn) bool {
	sum := make([]int, len(insns)+1) // of growth, up to a slot
	for i, in := range insns {
		sum[i+1] = sum[i] + growth(in)
	}
	for i, in := range insns {
		class := in.Op & abi.ClassMask
		if (class != abi.ClassJMP && class != abi.ClassJMP32) || in.Off >= 0 ||
			in.Op == abi.OpCall || in.Op == abi.OpExit || in.Op == abi.OpGotol {
			continue
		}
		if to := i + 1 + int(in.Off); in.Off < -dangerAt || to >= 0 && sum[i+1]-sum[to] > dangerAt {
			return true
		}
	}
	return false
}
