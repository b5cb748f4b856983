//go:build amd64 && !purego

package blind

import (
	"io"

	"golang.org/x/sys/cpu"

	"github.com/bpfjit/bpfjit/bpf"
)

//go:generate go run -C=../gen ./asm/blind -out ../blind/layout_amd64.s

// assembly tells whether the processor has what the assembly is made of.
var assembly = supported()

// supported asks for PDEP, PEXT, vectors of 32 bytes and what they come with. Every
// processor since 2013 has them, but for some small ones.
func supported() bool {
	return cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasPOPCNT
}

//go:noescape
func fetchAVO(insns *bpf.Insn, count int)

// rewriteAVO and hideAVO are for slots of a block, and where they go: slots and flags
// can be read up to the end of a unit, and index has room for a group behind its last
// element. Hiding also reads insns in front of the first one and behind the last, if
// they are halves of 64-bit constants. Numbers are random ones, one for each of hidden.
//
// They do what their Go twins do; a test compares them. gen/asm/blind writes them.
//
//go:noescape
func rewriteAVO(w *walk, insns *bpf.Insn, flags *bpf.Flag, index *int32, out *bpf.Insn, newFlags *bpf.Flag, jumps *uint64, numbers *byte, count int)

//go:noescape
func hideAVO(w *walk, insns *bpf.Insn, index *int32, out *bpf.Insn, newFlags *bpf.Flag, numbers *byte)

// composeAVO does what composeGeneric does, with count numbers, a group at least, and
// limit of second.
//
//go:noescape
func composeAVO(list, first, second *int32, count, limit int) (ok bool)

// fetch has the first slots of a program fetched, which is new to the caches unless a
// stage made it, as flags tell: what is done up to the first look at them takes no time.
// Programs of an object lie one behind the other, so what is a page ahead is likely to
// be wanted soon; if not, little is lost.
func fetch(p *bpf.Program) {
	if n := len(p.Insns); n > 0 && p.Flags == nil {
		fetchAVO(&p.Insns[0], min(n, 2*block))
	}
}

// rewrite does what rewriteGeneric does.
func (w *walk) rewrite(r *Result, p *bpf.Program, rand io.Reader, start, end int) error {
	if !assembly {
		return w.rewriteGeneric(r, p, rand, start, end)
	}
	if endsInHalf(p, end) {
		return unchecked(p, end-1)
	}
	np, count := &r.Program, end-start
	if room := int(r.Index[start]) + count*upperLen + overrun; room > min(cap(np.Insns), cap(np.Flags)) {
		r.reserve(room, len(p.Insns))
	}
	var numbers *byte
	if rand == nil {
		if numberBytes*count > w.source.left {
			if err := w.source.refill(); err != nil {
				return err
			}
		}
		numbers = &w.source.store[storeBytes-w.source.left]
	}
	flags := &noFlags[0]
	if p.Flags != nil {
		flags = &p.Flags[start:end][0]
	}
	w.asm.ahead = len(p.Insns)-end > block
	if units := (count + unit - 1) &^ (unit - 1); units > cap(p.Insns)-start || p.Flags != nil && units > cap(p.Flags)-start {
		count -= w.copyLast(p, start, end)
	}
	_ = r.Index[end+group]
	_ = w.jumps[uint(end)/64+1]
	insns, index, jumps := &p.Insns[start], &r.Index[start], &w.jumps[uint(start)/64]
	out, newFlags := &np.Insns[:1][0], &np.Flags[:1][0]
	rewriteAVO(w, insns, flags, index, out, newFlags, jumps, numbers, count)
	w.constants += w.numHidden
	if numbers != nil {
		w.source.left -= numberBytes * w.numHidden
	} else if w.numHidden > 0 {
		read, err := w.source.take(rand, w.numHidden)
		if err != nil {
			return err
		}
		hideAVO(w, insns, index, out, newFlags, &read[0])
	}
	switch {
	case w.asm.special|w.asm.reserved == 0:
		return nil
	case w.asm.reserved != 0:
		return unchecked(p, start)
	}
	return w.finish(r, p, start, end)
}

// assemblys is what the assembly wants of a walk besides lists and half.
type assemblys struct {
	// What it found in a block: something special, something reserved that is not 0.
	special, reserved uint32
	// ahead tells it that the program goes on for so long that a page ahead is worth
	// fetching.
	ahead bool
	// More slots, less than a unit behind whole ones, that can't be read up to the
	// end of a unit. Nothing follows them. It reads them from a copy, behind which is
	// anything, and makes rest 0. Only what is flagged has a copy of flags.
	flagged bool
	rest    int
	insns   [unit]bpf.Insn
	flags   [unit]bpf.Flag
}

// copyLast says that the last slots of a block, and of p, are read from a copy. It
// returns how many. The assembly copies the slots themselves.
func (w *walk) copyLast(p *bpf.Program, start, end int) (rest int) {
	rest = (end - start) % unit
	w.asm.rest, w.asm.flagged = rest, p.Flags != nil
	if p.Flags != nil {
		copy(w.asm.flags[:], p.Flags[end-rest:])
	}
	return rest
}

// composePart is how many numbers, or up to twice as many, the assembly takes at a
// time: it can't be interrupted.
const composePart = 2048

func composeInto(list, first, second []int32) (ok bool) {
	if !assembly || len(first) < group || len(list) < len(first) || len(second) == 0 {
		return composeGeneric(list, first, second)
	}
	for len(first) >= 2*composePart {
		if !composeAVO(&list[0], &first[0], &second[0], composePart, len(second)) {
			return false
		}
		list, first = list[composePart:], first[composePart:]
	}
	return composeAVO(&list[0], &first[0], &second[0], len(first), len(second))
}
