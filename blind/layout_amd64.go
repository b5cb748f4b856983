//go:build amd64 && !purego

package blind

import "github.com/bpfjit/bpfjit/bpf"

//go:generate go run -C=../gen ./asm/blind -out ../blind/layout_amd64.s

// A blockJob is what the assembly works on: a block of the old program, and
// where it goes. gen/asm/blind has the offsets.
type blockJob struct {
	insns     *bpf.Insn
	flags     *bpf.Flag
	origin    *int32
	index     *int32 // has an element more than there are slots
	out       *bpf.Insn
	newFlags  *bpf.Flag
	newOrigin *int32
	choices   *choiceTable
	lists     *lists

	count int // of slots, at least one
	from  int64
	// How long the lists are.
	hidden, other int
}

// layOutAVO does for the slots of a block what layOutGeneric and copyGeneric
// do; a test compares them. gen/asm/blind writes it.
//
//go:noescape
func layOutAVO(job *blockJob)

func (w *walk) layOut(insns []bpf.Insn, flags []bpf.Flag, origin []int32, from int32, index []int32) (hidden, other []uint8) {
	n := len(insns)
	_, _, _ = flags[n-1], origin[n-1], index[n]
	room := int(index[0]) + n*upperLen - 1
	_, _, _ = w.out[room], w.flags[room], w.origin[room]
	w.job = blockJob{
		insns: &insns[0], flags: &flags[0], origin: &origin[0], index: &index[0],
		out: &w.out[0], newFlags: &w.flags[0], newOrigin: &w.origin[0],
		choices: w.choices, lists: &w.lists, count: n, from: int64(from),
	}
	layOutAVO(&w.job)
	return w.hidden[:w.job.hidden], w.other[:w.job.other]
}
