package jit

import "github.com/bpfjit/bpfjit/abi"

// appendTailCall appends a tail call of the kernel profile. R2 is the map, R3
// the index into it; with an immediate the index is known and the kernel
// patches two places of the block when the map's slot changes. All jumps out
// of the block go to its end.
func (c *compiler) appendTailCall(b []byte, direct bool) []byte {
	var outs []int // bytes that hold the distance to the end
	out := func(cc byte) {
		b = append(b, cc, 0)
		outs = append(outs, len(b)-1)
	}
	counter := func() {
		b = append(b, 0x48, 0x8b, 0x85) // mov rax, [rbp+slot]
		b = le32(b, c.fn.slot())
		b = append(b, 0x48, 0x83, 0x38, abi.MaxTailCalls) // cmp qword ptr [rax], 33
		out(0x73)                                         // jae end
	}
	unwind := func() {
		b = append(b, 0x48, 0x83, 0x00, 0x01) // add qword ptr [rax], 1
		b = c.kernelPops(b)
		b = append(b, 0x58, 0x58) // pop rax, twice: the counter's slots
		if c.fn.stack() != 0 {
			b = append(b, 0x48, 0x81, 0xc4) // add rsp, stack
			b = le32(b, c.fn.stack())
		}
	}
	if direct {
		counter()
		b = append(b, 0xe9, 0, 0, 0, 0) // bypass: jmp end, a nop once the slot is filled
		bypass := len(b)
		unwind()
		b = append(b, 0x0f, 0x1f, 0x44, 0x00, 0x00) // nop, a jump to the program once it is
		le32(b[:bypass-4], int32(len(b)-bypass))
	} else {
		b = append(b, 0x89, 0xd2, // mov edx, edx
			0x39, 0x56, byte(c.profile.MapMaxEntries)) // cmp [rsi+max_entries], edx
		out(0x76) // jbe end
		counter()
		b = append(b, 0x48, 0x8b, 0x8c, 0xd6) // mov rcx, [rsi+rdx*8+ptrs]
		b = le32(b, c.profile.ArrayPtrs)
		b = append(b, 0x48, 0x85, 0xc9) // test rcx, rcx
		out(0x74)                       // jz end
		unwind()
		entry := byte(12)
		if c.profile.IBT {
			entry = 16
		}
		b = append(b, 0x48, 0x8b, 0x49, byte(c.profile.ProgFunc), // mov rcx, [rcx+func]
			0x48, 0x83, 0xc1, entry) // add rcx, entry
		switch c.profile.Indirect {
		case JumpThunk:
			b = append(b, 0xe9, 0, 0, 0, 0)
		case JumpFence:
			b = append(b, 0x0f, 0xae, 0xe8, 0xff, 0xe1) // lfence; jmp rcx
		case JumpPlain:
			b = append(b, 0xff, 0xe1)
		}
	}
	for _, at := range outs {
		b[at] = byte(len(b) - at - 1)
	}
	return b
}
