//go:build amd64 && !purego

package blind

import (
	"io"

	"golang.org/x/sys/cpu"

	"github.com/bpfjit/bpfjit/bpf"
)

//go:generate go run -C=../gen ./asm/blind -out ../blind/layout_amd64.s

// assembly tells whether the processor has what the assembly is made of: PDEP,
// PEXT and vectors of 32 bytes. Every one since 2013 has, but for some small ones.
var assembly = cpu.X86.HasBMI2 && cpu.X86.HasAVX2 && cpu.X86.HasPOPCNT

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

	count int // of slots at insns, at least one
	// More slots elsewhere, if there are: less than a unit, behind a multiple of one,
	// the program's last ones.
	rest      int
	lastInsns *bpf.Insn
	lastFlags *bpf.Flag

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

// tail has a copy of the last slots of a program, less than a unit. Behind them there
// may be anything.
type tail struct {
	insns [unit]bpf.Insn
	flags [unit]bpf.Flag
}

// rewrite does what rewriteGeneric does.
func (w *walk) rewrite(p *bpf.Program, rand io.Reader, to *result, start, end int) error {
	if !assembly {
		return w.rewriteGeneric(p, rand, to, start, end)
	}
	insns, flags, index := p.Insns[start:end], flagsOf(p, start, end), to.index[start:end+1+group]
	n := len(insns)
	room := int(index[0]) + n*upperLen + overrun
	if room > min(len(to.out), len(to.flags)) {
		to.reserve(room, len(p.Insns))
	}
	w.jumps[(end-1)/64] = 0 // half of it may be behind the last unit
	// Field by field: a literal would be made elsewhere, and copied in pieces that
	// the processor can't take from the stores before.
	var j blockJob
	j.insns, j.flags, j.index, j.count = &insns[0], &flags[0], &index[0], n
	j.out, j.newFlags, j.jumps = &to.out[0], &to.flags[0], &w.jumps[start/64]
	j.classes, j.lists, j.rules = &classes, &w.lists, &rules[0]
	j.ahead, j.half = len(p.Insns)-end > block, w.half
	if min(cap(insns), cap(flags)) < (n+unit-1)&^(unit-1) {
		w.last.take(&j, insns, flags)
	}
	layOutAVO(&j)
	w.half = j.half
	numbers, err := w.source.take(rand, w.numHidden)
	if err != nil {
		return err
	}
	if len(numbers) > 0 {
		j.insns, j.numbers = &insns[0], &numbers[0]
		hideAVO(&j)
		if j.reserved != 0 {
			return unchecked(p, start)
		}
	}
	if j.special != 0 {
		return w.finish(p, to, start, end)
	}
	return nil
}

// take copies slots that can't be read up to the end of a unit.
func (t *tail) take(j *blockJob, insns []bpf.Insn, flags []bpf.Flag) {
	whole := len(insns) &^ (unit - 1)
	rest := copy(t.insns[:], insns[whole:])
	copy(t.flags[:], flags[whole:])
	if whole == 0 {
		j.insns, j.flags = &t.insns[0], &t.flags[0]
		return
	}
	j.count, j.rest, j.lastInsns, j.lastFlags = whole, rest, &t.insns[0], &t.flags[0]
}
