package jit

import (
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/tables"
)

// counts is what comes before a mark, in a function: bytes of the marks that
// aren't jumps, and the number of jumps.
type counts struct{ bytes, jumps uint32 }

// dest is where a jump leads.
type dest struct {
	slot   uint32
	toExit bool // a later EXIT: the target is the epilogue
}

// layOut sizes the marks that no distance can change and collects the jumps.
func (c *compiler) layOut() error {
	marks := c.draft.Marks
	n := len(marks)
	c.gaps = slices.Grow(c.gaps[:0], n+1)[:n]
	c.before = slices.Grow(c.before[:0], n+1)[:n+1]
	c.jumps = slices.Grow(c.jumps[:0], n)[:0]
	c.dests = slices.Grow(c.dests[:0], n)[:0]
	c.others, c.charges, c.exit = c.others[:0], c.charges[:0], -1
	var sum counts
	for k, m := range marks {
		c.before[k] = sum
		row := m.Row()
		in := &c.insns[m.Slot]
		to := dest{slot: m.Slot + 1 + uint32(int32(in.Off))}
		size, op := uint8(encoder.LongJcc), row.Short
		switch row.Kind {
		case tables.Jcc:
		case tables.Ja:
			size = encoder.LongJa
			if in.Op == abi.OpGotol {
				to.slot = m.Slot + 1 + uint32(in.Imm)
			}
		default:
			if row.Kind == tables.Compiler && in.Op == abi.OpExit && c.exit >= 0 && !c.inlineExit() {
				to, size, op = dest{uint32(c.exit), true}, encoder.LongJa, opJmp8
				break
			}
			gap, err := c.other(k, m)
			if err != nil {
				return err
			}
			c.gaps[k] = gap
			sum.bytes += gap.Len
			continue
		}
		if to.slot >= uint32(len(c.insns)) || c.insns[to.slot].Op == 0 {
			return c.refuse()
		}
		c.jumps = append(c.jumps, jump{mark: uint32(k), size: size, op: op})
		c.dests = append(c.dests, to)
		sum.jumps++
	}
	c.before[n] = sum
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

// fixed returns the bytes before a slot that aren't jumps, and the number of
// jumps there.
func (c *compiler) fixed(slot uint32) (bytes, jumps uint32) {
	b := c.before[c.draft.Ranks[slot]]
	return uint32(len(c.prologue)) + c.draft.Ends[slot] - c.draft.Ends[0] + b.bytes, b.jumps
}
