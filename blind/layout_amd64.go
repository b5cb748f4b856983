//go:build amd64 && !purego

package blind

import (
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
	insns   *bpf.Insn // these and flags can be read up to the end of a unit
	flags   *bpf.Flag
	index   *int32 // has room for a group behind its last element
	out     *bpf.Insn
	classes *classTable
	lists   *lists

	first int // which slot of the block they begin with, a multiple of unit
	count int // of slots, at least one
	half  uint64

	// What hide needs besides.
	newFlags *bpf.Flag
	numbers  *byte // random ones, one for each of hidden
	rules    *rule
	reserved uint64 // the result
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

func (w *walk) layOut(j *blockJob, insns []bpf.Insn, flags []bpf.Flag, index []int32) {
	if !assembly {
		w.layOutGeneric(insns, flags, index)
		return
	}
	n := len(insns)
	_ = index[:n+1+group]
	room := int(index[0]) + n*upperLen + group - 1
	_, _ = w.out[room], w.flags[room]
	// Field by field: a literal would be made elsewhere, and copied in pieces that
	// the processor can't take from the stores before.
	j.out, j.classes, j.lists, j.half = &w.out[0], &classes, &w.lists, uint64(w.half)
	whole := n &^ (unit - 1)
	if whole > 0 {
		j.insns, j.flags, j.index, j.first, j.count = &insns[0], &flags[0], &index[0], 0, whole
		layOutAVO(j)
	}
	if whole < n {
		j.insns, j.flags = lastUnit(insns[whole:], &w.last.insns), lastUnit(flags[whole:], &w.last.flags)
		j.index, j.first, j.count = &index[whole], whole, n-whole
		layOutAVO(j)
	}
	w.half = uint32(j.half)
}

// lastUnit returns where there are elements of s that can be read up to the end of a
// unit: where they are, or a copy.
func lastUnit[E any](s []E, room *[unit]E) *E {
	if cap(s) < unit {
		copy(room[:], s)
		return &room[0]
	}
	return &s[0]
}

// hide goes on with the block that layOut has laid out.
func (w *walk) hide(j *blockJob, insns []bpf.Insn, numbers []byte, index []int32) (reserved uint32) {
	if !assembly {
		return w.hideGeneric(insns, numbers, index)
	}
	if w.numHidden == 0 {
		return 0
	}
	_ = numbers[numberBytes*w.numHidden-1]
	j.insns, j.index = &insns[0], &index[0]
	j.newFlags, j.numbers, j.rules = &w.flags[0], &numbers[0], &rules[0]
	hideAVO(j)
	return uint32(j.reserved)
}
