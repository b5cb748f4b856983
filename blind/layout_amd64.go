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

// A blockJob is what the assembly works on: a block of the old program, and
// where it goes. gen/asm/blind has the offsets.
type blockJob struct {
	insns   *bpf.Insn // these and flags can be read up to the end of a unit
	flags   *bpf.Flag
	index   *int32 // has room for a group behind its last element
	out     *bpf.Insn
	classes *classTable
	lists   *lists

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

func (w *walk) layOut(j *blockJob, insns []bpf.Insn, flags []bpf.Flag, index []int32) {
	if !assembly {
		w.layOutGeneric(insns, flags, index)
		return
	}
	n := len(insns)
	up := (n + unit - 1) &^ (unit - 1)
	_, _, _ = insns[:up], flags[:up], index[:n+1+group]
	room := int(index[0]) + n*upperLen + group - 1
	_, _ = w.out[room], w.flags[room]
	// Field by field: a literal would be made elsewhere, and copied in pieces that
	// the processor can't take from the stores before.
	j.insns, j.flags, j.index, j.out = &insns[0], &flags[0], &index[0], &w.out[0]
	j.classes, j.lists, j.count, j.half = &classes, &w.lists, n, uint64(w.half)
	layOutAVO(j)
	w.half = uint32(j.half)
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
	j.newFlags, j.numbers, j.rules = &w.flags[0], &numbers[0], &rules[0]
	hideAVO(j)
	return uint32(j.reserved)
}
