package jit

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// appendSpecial appends the code of a slot that isn't plain and isn't a jump.
// at is its offset in code, where relocations and faults are noted; code is
// nil while only the length is wanted.
func (c *compiler) appendSpecial(b []byte, slot int, code *Code, at uint32) ([]byte, error) {
	in := c.insns[slot]
	row := &tables.Rows[c.rows[slot]]
	if row.Kind == tables.Special {
		start := len(b)
		b = encoder.AppendRow(b, row, in, int64(in.Imm), &c.args)
		if code != nil && isProbe(in) {
			last := encoder.LastStep(row, in)
			code.Faults = append(code.Faults, Fault{
				Slot: c.start + slot, Offset: at + uint32(len(b)-start-last), Len: uint8(last),
				Clear: int8(in.Dst()), Arena: -1,
			})
		}
		return b, nil
	}
	reloc := func(kind RelocKind) {
		if code != nil {
			code.Relocs = append(code.Relocs, Reloc{Slot: c.start + slot, Offset: at + uint32(len(b)) - 4, Kind: kind})
		}
	}
	switch in.Op {
	case abi.OpExit:
		b = append(b, c.epilogue...)
		if !c.cage && c.profile.ReturnThunk {
			reloc(RelReturnThunk)
		}
		return b, nil
	case abi.OpTailCall:
		direct := in.Imm != 0
		b = c.appendTailCall(b, direct)
		if !direct && c.profile.Indirect == JumpThunk {
			reloc(RelIndirectThunk)
		}
		return b, nil
	case abi.OpCall:
		return c.appendCall(b, in, slot, reloc)
	}
	return b, errorAt(c.prog, c.start+slot, "", "has no code in this profile", bpf.ErrUnsupported)
}

func (c *compiler) appendCall(b []byte, in abi.Insn, slot int, reloc func(RelocKind)) ([]byte, error) {
	local := in.Src() == abi.CallLocal
	if c.cage {
		b = append(b, 0xe8, 0, 0, 0, 0)
		reloc(RelLocal)
		return b, nil
	}
	if c.fn.TailCallReachable {
		if c.profile.OldPrologue {
			return b, errorAt(c.prog, c.start+slot, "", "calls beside tail calls have no code in this profile", bpf.ErrUnsupported)
		}
		if local {
			b = append(b, 0x48, 0x8b, 0x85) // mov rax, [rbp+slot]: the counter
			b = le32(b, c.fn.slot())
		}
	}
	if !local && in.Src() == abi.CallHelper && in.Imm == 0 {
		return b, errorAt(c.prog, c.start+slot, "imm", "is 0: no helper", nil)
	}
	if c.fn.PrivateStack != 0 {
		b = append(b, 0x41, 0x51) // push r9
	}
	b = append(b, 0xe8, 0, 0, 0, 0)
	switch in.Src() {
	case abi.CallLocal:
		reloc(RelLocal)
	case abi.CallKfunc:
		reloc(RelKfunc)
	default:
		reloc(RelHelper)
	}
	if c.fn.PrivateStack != 0 {
		b = append(b, 0x41, 0x59) // pop r9
	}
	return b, nil
}

// isProbe tells whether an instruction is a load that may fault (PROBE_MEM,
// PROBE_MEMSX).
func isProbe(in abi.Insn) bool {
	mode := in.Op & abi.ModeMask
	return in.Op&abi.ClassMask == abi.ClassLDX && (mode == 0x20 || mode == 0x40)
}
