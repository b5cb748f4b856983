package blind

import (
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// reference hides constants by the rules of Linux 6.18, told by opcode and
// not by the tables: what becomes of each slot is written down first, with
// the slots that jumps lead to, and all distances are worked out in the end.
func reference(p *bpf.Program, random func() uint32) (np *bpf.Program, index []int32) {
	np = &bpf.Program{}
	var own []int // where each old slot's instruction is
	for i, in := range p.Insns {
		insns := []bpf.Insn{in}
		switch {
		case p.Flag(i)&bpf.Inserted != 0:
		case in.Dst() == 11 || in.Src() == 11:
		case in.Op == 0x00 && i > 0 && p.Insns[i-1].Op == 0x18:
			first := p.Insns[i-1]
			if p.Flag(i-1)&bpf.Inserted == 0 && first.Dst() != 11 && first.Src() != abi.Imm64Func {
				insns = referenceLower(first, random())
			}
		default:
			var next bpf.Insn
			if i+1 < len(p.Insns) {
				next = p.Insns[i+1]
			}
			insns = referenceOne(in, next, random)
		}
		index = append(index, int32(len(np.Insns)))
		for range insns[1:] {
			np.Flags = append(np.Flags, bpf.Inserted)
			np.Origin = append(np.Origin, int32(p.Source(i)))
		}
		np.Flags = append(np.Flags, p.Flag(i))
		np.Origin = append(np.Origin, int32(p.Source(i)))
		np.Insns = append(np.Insns, insns...)
		own = append(own, len(np.Insns)-1)
	}
	index = append(index, int32(len(np.Insns)))
	for i, in := range p.Insns {
		d, ok := bpf.Distance(in)
		to := i + 1 + int(d)
		if !ok || to < 0 || to > len(p.Insns) {
			continue
		}
		now := &np.Insns[own[i]]
		nd := int(index[to]) - own[i] - 1
		if in.Op == abi.OpCall || in.Op == abi.OpGotol || in.Op == abi.OpLdImm64 {
			now.Imm = int32(nd)
		} else {
			now.Off = int16(nd)
		}
	}
	return np, index
}

// The operations that have constants to hide, by the upper half of the opcode.
var (
	referenceALU  = []uint8{0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x90, 0xa0, 0xb0}
	referenceJump = []uint8{0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0}
)

func referenceOne(in, next bpf.Insn, random func() uint32) []bpf.Insn {
	ax := func(op uint8, imm uint32) bpf.Insn { return bpf.Insn{Op: op, Regs: 11, Imm: int32(imm)} }
	class, high, byReg := in.Op&7, in.Op&0xf0, in.Op&8 != 0
	mov, xor := uint8(0xb7), uint8(0xa7)
	switch {
	case (in.Op == 0xb7 || in.Op == 0xb4) && in.Imm == 0:
		return []bpf.Insn{{Op: 0xaf, Regs: in.Dst()<<4 | in.Dst()}}
	case in.Op == 0x18 && in.Src() != abi.Imm64Func:
		r := random()
		return []bpf.Insn{ax(mov, r^uint32(next.Imm)), ax(xor, r), ax(0x67, 32), {Op: 0xbf, Regs: 11<<4 | in.Dst()}}
	case (class == 4 || class == 7) && !byReg && slices.Contains(referenceALU, high),
		(class == 5 || class == 6) && !byReg && slices.Contains(referenceJump, high):
		if class == 4 || class == 6 {
			mov, xor = 0xb4, 0xa4
		}
		r := random()
		return []bpf.Insn{ax(mov, r^uint32(in.Imm)), ax(xor, r), {Op: in.Op | 8, Regs: 11<<4 | in.Dst(), Off: in.Off}}
	case class == 2 && (in.Op>>5 == 3 || in.Op>>5 == 5):
		r := random()
		return []bpf.Insn{ax(mov, r^uint32(in.Imm)), ax(xor, r), {Op: in.Op | 1, Regs: 11<<4 | in.Dst(), Off: in.Off}}
	}
	return []bpf.Insn{in}
}

func referenceLower(first bpf.Insn, r uint32) []bpf.Insn {
	return []bpf.Insn{
		{Op: 0xb4, Regs: 11, Imm: int32(r) ^ first.Imm},
		{Op: 0xa4, Regs: 11, Imm: int32(r)},
		{Op: 0x4f, Regs: 11<<4 | first.Dst()},
	}
}
