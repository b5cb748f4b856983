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
func (c *compiler) appendSpecial(b []byte, slot int, row *tables.Row, code *Code, at uint32) ([]byte, error) {
	in := c.insns[slot]
	if row.Kind == tables.Special {
		start := len(b)
		args := c.profile.args(c.fn)
		b = encoder.AppendRow(b, row, in, int64(in.Imm), &args)
		if code != nil && isProbe(in) {
			last := encoder.LastStep(row, in)
			code.Faults = append(code.Faults, Fault{
				Slot: c.start + slot, Offset: at + uint32(len(b)-start-last), Len: uint8(last),
				Clear: int8(in.Dst()), Arena: -1,
			})
		}
		return b, nil
	}
	// reloc notes that b ends in a field.
	reloc := func(b []byte, kind RelocKind) {
		if code != nil {
			code.Relocs = append(code.Relocs, Reloc{Slot: c.start + slot, Offset: at + uint32(len(b)) - 4, Kind: kind})
		}
	}
	switch in.Op {
	case abi.OpSum, abi.OpSum32:
		return appendSum(b, in), nil
	case abi.OpExit:
		b = append(b, c.job.frame.epilogue...)
		if !c.cage && c.profile.ReturnThunk {
			reloc(b, RelReturnThunk)
		}
		return b, nil
	case abi.OpTailCall:
		direct := in.Imm != 0
		b = c.appendTailCall(b, direct)
		if !direct && c.profile.Indirect == JumpThunk {
			reloc(b, RelIndirectThunk)
		}
		return b, nil
	case abi.OpCall:
		return c.appendCall(b, in, slot, reloc)
	}
	return b, errorAt(c.prog, c.start+slot, "", "has no code in this profile", bpf.ErrUnsupported)
}

func (c *compiler) appendCall(b []byte, in abi.Insn, slot int, reloc func([]byte, RelocKind)) ([]byte, error) {
	local := in.Src() == abi.CallLocal
	if c.cage {
		b = append(b, 0xe8, 0, 0, 0, 0)
		reloc(b, RelLocal)
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
	if !local && in.Imm == 0 {
		return b, errorAt(c.prog, c.start+slot, "imm", "is 0: no helper and no kernel function", nil)
	}
	if c.fn.PrivateStack != 0 {
		b = append(b, 0x41, 0x51) // push r9
	}
	b = append(b, 0xe8, 0, 0, 0, 0)
	reloc(b, RelocKind(in.Src()))
	if c.fn.PrivateStack != 0 {
		b = append(b, 0x41, 0x59) // pop r9
	}
	return b, nil
}

// note adds what a slot has to offer whose code is complete: the relocation of
// a constant, or an access to arena memory that may fault.
func (c *compiler) note(code *Code, slot int, row *tables.Row, end uint32) {
	in := c.insns[slot]
	switch {
	case in.Op == abi.OpLdImm64 && in.Src() == abi.Imm64Func:
		code.Relocs = append(code.Relocs, Reloc{Slot: c.start + slot, Offset: end - 4, Kind: RelFunc})
	case in.Op == abi.OpLdImm64:
		code.Relocs = append(code.Relocs, Reloc{Slot: c.start + slot, Offset: end - 8, Kind: RelMap})
	default:
		f := Fault{
			Slot: c.start + slot, Offset: end - uint32(row.Size), Len: row.Size,
			Clear: -1, Arena: int8(in.Dst()), Off: in.Off,
		}
		if in.Op&abi.ClassMask == abi.ClassLDX {
			f.Clear, f.Arena = int8(in.Dst()), int8(in.Src())
		}
		code.Faults = append(code.Faults, f)
	}
}

// isProbe tells whether an instruction is a load that may fault (PROBE_MEM,
// PROBE_MEMSX).
func isProbe(in abi.Insn) bool {
	mode := in.Op & abi.ModeMask
	return in.Op&abi.ClassMask == abi.ClassLDX && (mode == 0x20 || mode == 0x40)
}
