package blind

import (
	"encoding/binary"
	"io"
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
	// overrun is how much room the assembly wants behind the new slots: it moves and
	// clears what a group may become.
	overrun = group * upperLen
)

// lists are of a block.
type lists struct {
	// A bit for each slot: hiding, that it has a constant to hide; upper, that
	// this is the first half of a 64-bit one; zero, that it becomes a zero; special,
	// that it does or has a flag. Behind the last unit of slots there is anything.
	hiding, upper, zero, special bitmap
	// hidden lists the slots of hiding, with room for a group behind them.
	hidden    [block + group]uint8
	numHidden int
}

type bitmap [block / unit]uint32

// noFlags are those of programs that have none.
var noFlags [block]bpf.Flag

// flagsOf returns the flags of slots.
func flagsOf(p *bpf.Program, start, end int) []bpf.Flag {
	if p.Flags == nil {
		return noFlags[:end-start]
	}
	return p.Flags[start:end]
}

// rewriteGeneric rewrites the slots from start up to end, at most a block, and notes
// in jumps which may have a distance. Distances stay as they are. The index says
// where the first one goes.
func (w *walk) rewriteGeneric(r *Result, p *bpf.Program, rand io.Reader, start, end int) error {
	if endsInHalf(p, end) {
		return unchecked(p, end-1)
	}
	np := &r.Program
	room := int(r.Index[start]) + (end-start)*upperLen + overrun
	if room > min(cap(np.Insns), cap(np.Flags)) {
		r.reserve(room, len(p.Insns))
	}
	to := result{np.Insns[:room], np.Flags[:room], r.Index[:end+1]}
	special := w.layOutGeneric(p, &to, start, end)
	numbers, err := w.source.take(rand, w.numHidden)
	if err != nil {
		return err
	}
	w.constants += w.numHidden
	if w.hideGeneric(p.Insns, numbers, &to, start) != 0 {
		return unchecked(p, start)
	}
	if special != 0 {
		return w.finish(r, p, start, end)
	}
	return nil
}

// endsInHalf reports whether p ends in the first half of a 64-bit constant. The
// second would be read.
func endsInHalf(p *bpf.Program, end int) bool {
	return p.Insns[end-1].Op == abi.OpLdImm64 && end == len(p.Insns)
}

// result is what a block becomes part of.
type result struct {
	out   []bpf.Insn
	flags []bpf.Flag
	index []int32
}

// layOutGeneric sees what is to be done about each slot of a block, and fills in
// the lists and jumps. It fills in the index, whose first element is set, and puts
// every instruction where it is in the new program, whose flags it clears. It
// returns 0 if no slot is special.
func (w *walk) layOutGeneric(p *bpf.Program, to *result, start, end int) (special uint32) {
	w.lists = lists{}
	clear(w.jumps[start/64 : (end+63)/64])
	at, half := to.index[start], w.half
	for i, flag := range flagsOf(p, start, end) {
		in := &p.Insns[start+i]
		c := classes.of(in.Op, in.Regs)
		u, bit := i/unit, i%unit
		w.jumps[(start+i)/64] |= uint64(is(c&leads)) << (i % 64)
		authors := uint32(flag&bpf.Inserted) ^ 1
		upper := is(c&upperHalf) & authors
		zero := is(c&move) & authors & isZero(in.Imm)
		hide := is(c&hides)&authors&^zero | half
		half = upper // the slot behind it is the second half, whatever it looks like
		w.hiding[u] |= hide << bit
		w.upper[u] |= upper << bit
		w.zero[u] |= zero << bit
		w.special[u] |= (zero | is(uint8(flag))) << bit
		special |= w.special[u]
		w.hidden[w.numHidden] = uint8(i)
		w.numHidden += int(hide)
		to.index[start+i] = at
		at += 1 + (hiddenLen-1)*int32(hide) + int32(upper)
		to.out[at-1] = *in
	}
	w.half = half
	to.index[end] = at
	clear(to.flags[to.index[start]:at])
	return special
}

// is returns 1 if there is a bit, else 0.
func is(bits uint8) uint32 { return (uint32(bits) + 0xff) >> 8 }

// isZero returns 1 for 0, else 0.
func isZero(v int32) uint32 { return ^uint32(v|-v) >> 31 }

// hideGeneric hides the constants of the listed slots. It returns 0, unless something
// is not 0 that is reserved and would be lost, or mean something in what the slot
// becomes.
func (w *walk) hideGeneric(insns []bpf.Insn, numbers []byte, to *result, start int) (reserved uint32) {
	for k, i := range w.hidden[:w.numHidden] {
		slot := start + int(i)
		in, at, last := &insns[slot], to.index[slot], to.index[slot+1]-1
		rule := &rules[in.Op]
		other := &insns[slot+int(rule.other)]
		out, flags := to.out[at:][:hiddenLen], to.flags[at:][:hiddenLen]
		r := uint64(binary.LittleEndian.Uint32(numbers[numberBytes*k:])) << 32
		set(&out[0], uint64(rule.mov)|r^uint64(uint32(other.Imm))<<32)
		set(&out[1], uint64(rule.xor)|r)
		set(&out[2], shift) // unless it is the last
		set(&to.out[last], uint64((low(in)|low(other)|anySource)^rule.own))
		reserved |= low(other) & rule.reserved
		flags[0], flags[1], flags[2] = bpf.Inserted, bpf.Inserted, bpf.Inserted
		to.flags[last] = 0
	}
	return reserved
}

// low returns all of an instruction but imm.
func low(in *bpf.Insn) uint32 {
	return uint32(in.Op) | uint32(in.Regs)<<8 | uint32(uint16(in.Off))<<16
}

// finish does what is to be done about few slots of a block: it makes zeros, and
// gives instructions, which have no flags yet, those that they had.
func (w *walk) finish(r *Result, p *bpf.Program, start, end int) error {
	length := r.Index[end]
	out, flags := r.Program.Insns[:length], r.Program.Flags[:length]
	for u, at := 0, start; at < end; u, at = u+1, at+unit {
		for set := w.special[u]; set != 0; set &= set - 1 {
			slot := at + bits.TrailingZeros32(set)
			last := r.Index[slot+1] - 1
			if p.Flags != nil {
				flags[last] = p.Flags[slot]
			}
			if w.zero[u]&set&-set == 0 {
				continue
			}
			in := &p.Insns[slot]
			if in.Off != 0 {
				return unchecked(p, slot)
			}
			out[last] = bpf.Insn{Op: xorReg, Regs: abi.Registers(in.Dst(), in.Dst())}
		}
	}
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
