package blind

import (
	"encoding/binary"
	"math/bits"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

const (
	// block is how many slots are rewritten at a time: as many as a byte counts.
	block = 256
	// unit is how many slots the assembly looks at at once, group how many it
	// moves.
	unit  = 32
	group = 8
)

// lists are of a block.
type lists struct {
	// A bit for each slot: hiding, that it has a constant to hide; upper, that
	// this is the first half of a 64-bit one; zero, that it becomes a zero;
	// leads, that it may have a distance.
	hiding, upper, zero, leads bitmap
	// hidden lists the slots of hiding, with room for a group behind them.
	hidden    [block + group]uint8
	numHidden int
}

type bitmap [block / unit]uint32

// word returns the bits of two units, u even.
func (b *bitmap) word(u int) uint64 { return uint64(b[u]) | uint64(b[u|1])<<unit }

// noFlags are those of programs that have none.
var noFlags [block]bpf.Flag

// rewrite rewrites the slots from start up to end, at most a block. Distances
// stay as they are.
func (w *walk) rewrite(p *bpf.Program, start, end int) error {
	insns, flags := p.Insns[start:end], noFlags[:end-start]
	if p.Flags != nil {
		flags = p.Flags[start:end]
	}
	index := w.index[start : end+1 : end+1+group]
	half := w.half
	// The last unit may be the first one of a word.
	w.upper = bitmap{}
	w.zero = bitmap{}
	w.leads = bitmap{}
	w.numHidden = 0
	var job blockJob
	w.layOut(&job, insns, flags, index)
	clear(w.flags[index[0]:index[end-start]])
	if p.Flags != nil {
		w.copyFlags(flags, index)
	}
	numbers, err := w.source.take(w.numHidden)
	if err != nil {
		return err
	}
	w.constants += w.numHidden
	if w.hide(&job, insns, numbers, index) != 0 {
		return unchecked(p, start)
	}
	if half != 0 {
		if err := w.hidePair(p, start-1); err != nil {
			return err
		}
	}
	for at := start; at < end; at += 64 {
		u := (at - start) / unit
		w.jumps[at/64] = w.leads.word(u)
		upper := w.upper.word(u)
		for set := upper | w.zero.word(u); set != 0; set &= set - 1 {
			slot := at + bits.TrailingZeros64(set)
			switch in := &p.Insns[slot]; {
			case upper&set&-set == 0:
				if in.Off != 0 {
					return unchecked(p, slot)
				}
				w.out[w.index[slot]] = bpf.Insn{Op: xorReg, Regs: abi.Registers(in.Dst(), in.Dst())}
			case slot+1 < end: // else the second half is in the next block
				if err := w.hidePair(p, slot); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// layOutGeneric sees what is to be done about each slot of a block, and fills in
// the lists. It fills in the index, whose first element is set, and puts every
// instruction where it is in the new program.
func (w *walk) layOutGeneric(insns []bpf.Insn, flags []bpf.Flag, index []int32) {
	w.lists = lists{}
	at, half := index[0], w.half
	for i := range insns {
		in := &insns[i]
		c := classes.of(in.Op, in.Regs)
		u, bit := i/unit, i%unit
		w.leads[u] |= is(c&leads) << bit
		authors := uint32(flags[i]&bpf.Inserted) ^ 1
		upper := is(c&upperHalf) & authors
		zero := is(c&move) & authors & isZero(in.Imm)
		hide := is(c&hides)&authors&^zero | half
		half = upper // the slot behind it is the second half, whatever it looks like
		w.hiding[u] |= hide << bit
		w.upper[u] |= upper << bit
		w.zero[u] |= zero << bit
		w.hidden[w.numHidden] = uint8(i)
		w.numHidden += int(hide)
		index[i] = at
		at += 1 + (hiddenLen-1)*int32(hide) + int32(upper)
		w.out[at-1] = *in
	}
	w.half = half
	index[len(insns)] = at
}

// is returns 1 if there is a bit, else 0.
func is(bits uint8) uint32 { return (uint32(bits) + 0xff) >> 8 }

// isZero returns 1 for 0, else 0.
func isZero(v int32) uint32 { return ^uint32(v|-v) >> 31 }

// copyFlags gives the instructions of a block, which have none, the flags that they
// had. Most had none.
func (w *walk) copyFlags(flags []bpf.Flag, index []int32) {
	for len(flags) >= group {
		if f := (*[group]bpf.Flag)(flags); *f != [group]bpf.Flag{} {
			w.copyFlagsOf(f[:], index)
		}
		flags, index = flags[group:], index[group:]
	}
	w.copyFlagsOf(flags, index)
}

func (w *walk) copyFlagsOf(flags []bpf.Flag, index []int32) {
	for i, f := range flags {
		w.flags[index[i+1]-1] = f
	}
}

// hideGeneric hides the constants of the listed slots, of each half of a 64-bit
// constant as if the half stood for itself. It returns 0, unless there is an off
// that is reserved and would be none in what the slot becomes.
func (w *walk) hideGeneric(insns []bpf.Insn, numbers []byte, index []int32) (reserved uint32) {
	for k, i := range w.hidden[:w.numHidden] {
		in := &insns[i]
		rule := &rules[in.Op]
		out, flags := w.out[index[i]:][:hiddenLen], w.flags[index[i]:][:hiddenLen]
		low := uint32(in.Op) | uint32(in.Regs)<<8 | uint32(uint16(in.Off))<<16
		r := uint64(binary.LittleEndian.Uint32(numbers[numberBytes*k:])) << 32
		set(&out[0], uint64(rule.mov)|r^uint64(uint32(in.Imm))<<32)
		set(&out[1], uint64(rule.xor)|r)
		set(&out[2], uint64(low|rule.own))
		reserved |= low & rule.reserved
		flags[0], flags[1] = bpf.Inserted, bpf.Inserted
	}
	return reserved
}

// hidePair hides the 64-bit constant of a slot and the next. hide has hidden each
// half with its own number, but the upper one's comes first.
func (w *walk) hidePair(p *bpf.Program, slot int) error {
	lo, hi := &p.Insns[slot], &p.Insns[slot+1]
	if lo.Off|hi.Off != 0 || hi.Op|hi.Regs != 0 {
		return unchecked(p, slot) // its reserved fields are not 0
	}
	at := w.index[slot]
	out := (*[upperLen + hiddenLen]bpf.Insn)(w.out[at:])
	own := uint64(abi.Registers(lo.Dst(), abi.AX)) << 8
	swap := lo.Imm ^ hi.Imm
	out[0].Imm ^= swap
	set(&out[2], uint64(lsh64)|abi.AX<<8|32<<32)
	set(&out[3], uint64(movReg)|own)
	out[4].Imm ^= swap
	set(&out[6], uint64(orReg)|own)
	w.flags[at+2] = bpf.Inserted
	return nil
}

// unchecked is the error about a slot that is no instruction, and would become
// one.
func unchecked(p *bpf.Program, slot int) error {
	if err := bpf.Check(p, bpf.Translated); err != nil {
		return err
	}
	return &bpf.Error{Slot: slot, Insn: p.Insns[slot], Reason: "BUG: is not well-formed"}
}
