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

// A blockJob is what the assembly works on: slots of a block of the old program,
// and where they go. gen/asm/blind has the offsets.
type blockJob struct {
	insns    *bpf.Insn // these and flags can be read up to the end of a unit
	flags    *bpf.Flag
	index    *int32 // has room for a group behind its last element
	out      *bpf.Insn
	newFlags *bpf.Flag
	jumps    *uint64 // of the block
	classes  *classTable
	lists    *lists
	rules    *rule

	count int // of slots
	// More slots, less than a unit behind whole ones, that can't be read up to the
	// end of a unit. Nothing follows them.
	rest      int
	lastInsns *bpf.Insn // room for a unit
	lastFlags *bpf.Flag // theirs, which can be read up to the end of one

	ahead   bool   // the program goes on for so long that a page ahead is worth fetching
	half    uint32 // as in walk
	special uint32 // a result of layOut

	// What hide needs besides. It reads insns in front of the first one and behind
	// the last, if they are halves of 64-bit constants.
	reserved uint32 // its result
	numbers  *byte  // random ones, one for each of hidden
}

// layOutAVO does what layOutGeneric does, hideAVO what hideGeneric does; a test
// compares them. gen/asm/blind writes them.
//
//go:noescape
func layOutAVO(job *blockJob)

//go:noescape
func hideAVO(job *blockJob)

// composeAVO does what composeGeneric does, with count numbers, a group at least, and
// limit of second.
//
//go:noescape
func composeAVO(list, first, second *int32, count, limit int) (ok bool)

// rewrite does what rewriteGeneric does.
func (w *walk) rewrite(r *Result, p *bpf.Program, rand io.Reader, start, end int) error {
	if !assembly {
		return w.rewriteGeneric(r, p, rand, start, end)
	}
	if endsInHalf(p, end) {
		return unchecked(p, end-1)
	}
	_ = r.Index[end+group]
	np, index := &r.Program, &r.Index[start]
	room := int(*index) + (end-start)*upperLen + overrun
	if room > min(cap(np.Insns), cap(np.Flags)) {
		r.reserve(room, len(p.Insns))
	}
	// Field by field: a literal would be made elsewhere, and copied in pieces that
	// the processor can't take from the stores before.
	var j blockJob
	insns := &p.Insns[start]
	j.insns, j.flags, j.index, j.count = insns, &noFlags[0], index, end-start
	if p.Flags != nil {
		j.flags = &p.Flags[start:end][0]
	}
	_ = w.jumps[uint(end)/64+1]
	j.out, j.newFlags, j.jumps = &np.Insns[:1][0], &np.Flags[:1][0], &w.jumps[uint(start)/64]
	j.classes, j.lists, j.rules = &classes, &w.lists, &rules[0]
	j.ahead, j.half = len(p.Insns)-end > block, w.half
	if units := (end - start + unit - 1) &^ (unit - 1); units > cap(p.Insns)-start || p.Flags != nil && units > cap(p.Flags)-start {
		w.last.take(&j, p, end)
	}
	layOutAVO(&j)
	w.half = j.half
	numbers, err := w.source.take(rand, w.numHidden)
	if err != nil {
		return err
	}
	w.constants += w.numHidden
	if len(numbers) > 0 {
		j.insns, j.numbers = insns, &numbers[0]
		hideAVO(&j)
		if j.reserved != 0 {
			return unchecked(p, start)
		}
	}
	if j.special != 0 {
		return w.finish(r, p, start, end)
	}
	return nil
}

// tail is for the last slots of a program, if what is behind them can't be read: less
// than a unit. There may be anything behind them.
type tail struct {
	insns [unit]bpf.Insn
	flags [unit]bpf.Flag
}

// take makes the last slots of a job, and of p, such ones.
func (t *tail) take(j *blockJob, p *bpf.Program, end int) {
	j.rest = j.count % unit
	j.count -= j.rest
	j.lastInsns, j.lastFlags = &t.insns[0], &noFlags[0]
	if p.Flags != nil {
		copy(t.flags[:], p.Flags[end-j.rest:])
		j.lastFlags = &t.flags[0]
	}
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
