package jit

import (
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// layOut finds out what the passes need to know of every mark, and runs pass 0
// on the way.
func (c *compiler) layOut() error {
	marks, insns := c.draft.Marks, c.insns
	ends, ranks := c.draft.Ends, c.draft.Ranks
	n := len(marks)
	c.gaps = slices.Grow(c.gaps[:0], n+1)[:n]
	c.jumps = slices.Grow(c.jumps[:0], n)[:n]
	c.sums = slices.Grow(c.sums[:0], n+1)[:n+1]
	c.others, c.charges, c.exit = c.others[:0], c.charges[:0], -1
	jumps, sums := c.jumps[:n], c.sums[:n+1]
	reach, first, firstRank := c.reach(), ends[0], ranks[0]
	start := uint32(len(c.prologue)) - first // what makes an address of an end
	var sum uint32
	for k, m := range marks {
		slot, row := m.Slot, m.Row()
		in := &insns[slot]
		sums[k] = sum
		size, op := uint32(encoder.LongJcc), row.Short
		to := slot + 1 + uint32(int32(in.Off))
		if row.Kind != tables.Jcc {
			switch {
			case row.Kind == tables.Ja:
				size = encoder.LongJa
				if in.Op == abi.OpGotol {
					to = slot + 1 + uint32(in.Imm)
				}
			case in.Op == abi.OpExit && c.exit >= 0 && !c.inlineExit():
				size, op, to = encoder.LongJa, opJmp8, uint32(c.exit)
			default:
				gap, err := c.other(k, m)
				if err != nil {
					return err
				}
				c.gaps[k] = gap
				jumps[k] = jump{dist: far, rank: uint32(k + 1), size: gap.Len}
				sum += gap.Len
				continue
			}
		}
		if to >= uint32(len(insns)) || insns[to].Op == 0 {
			return c.refuse()
		}
		target, rank := ends[to], (ranks[to]-firstRank)/encoder.MarkSize
		j := jump{dist: target - ends[slot+1], rank: rank, size: size, op: op}
		d := estimate * (to - slot - 1)
		if to <= slot {
			d = start + target + sums[rank] - estimate*(slot+2)
			if to == slot && size == encoder.LongJa {
				j.dist, j.rank, d = minusOneJa, uint32(k+1), minusOneJa
			}
		}
		jumps[k] = j
		sum += j.length(d, reach)
	}
	sums[n] = sum
	if !c.ends() {
		return c.refuse()
	}
	return nil
}

// opJmp8 is the opcode of an unconditional jump of two bytes.
const opJmp8 = 0xeb

// ends tells whether the function ends in an instruction that nothing follows.
func (c *compiler) ends() bool {
	switch c.insns[len(c.insns)-1].Op {
	case abi.OpExit, abi.OpJa, abi.OpGotol:
		return true
	case abi.OpCall, abi.OpTailCall:
		return !c.cage
	}
	return c.cage // lower may put instructions behind the last one
}

// other sizes a mark that isn't a jump.
func (c *compiler) other(k int, m encoder.Mark) (encoder.Gap, error) {
	c.others = append(c.others, uint32(k))
	in, row := c.insns[m.Slot], m.Row()
	switch {
	case c.plainCall(in):
		return encoder.Gap{Bytes: 0xe8, Len: 5}, nil
	case row.Kind == tables.Noted:
		return encoder.Gap{}, nil
	case row.Kind == tables.Charge:
		c.charges = append(c.charges, uint32(c.start)+m.Slot)
		return encoder.Gap{Len: encoder.LongJcc}, nil
	case row.Kind == tables.Special:
		return encoder.Gap{Len: uint32(row.Size)}, nil
	case in.Op == abi.OpExit:
		if c.exit < 0 {
			c.exit = int(m.Slot)
		}
		return encoder.Gap{Len: uint32(len(c.epilogue))}, nil
	}
	b, err := c.appendSpecial(c.special[:0], int(m.Slot), row, nil, 0)
	c.special = b[:0]
	return encoder.Gap{Len: uint32(len(b))}, err
}

// inlineExit tells whether every EXIT is the whole epilogue: in the cage,
// where that isn't longer than a jump to it.
func (c *compiler) inlineExit() bool { return c.cage && len(c.epilogue) <= encoder.LongJa }
