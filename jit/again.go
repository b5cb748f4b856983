package jit

import "github.com/bpfjit/bpfjit/abi"

// An access to memory in the cage cuts its address to 32 bits first:
//
//	mov r11d, edi
//	mov eax, dword ptr [r12+r11+8]
//
// The next one through the same register needn't, as long as r11 and the
// register have not changed. Such an access is marked, by a 1 in a field that is
// reserved, and has a row without the move. What r11 holds is forgotten
//
//	where a jump leads to          it may come from elsewhere; a jump back leads
//	                               to a CHARGE
//	at CHARGE, calls, and EXIT     the way out and back takes r11
//	at division, atomics, shifts   rows that use it themselves
//	when the register is written
//
// A fault leaves r11 as it was, whether it ends the run or is mended.

// markAgain makes an access one that finds its address in r11.
func markAgain(in *abi.Insn) {
	if in.Op&abi.ClassMask == abi.ClassST {
		in.Regs |= 1 << 4
	} else {
		in.Imm = 1
	}
}
