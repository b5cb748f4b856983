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

	numbers *uint32 // random ones, one for each of hidden
	rules   *rule
	// What hide returns.
	reserved int
}

// layOutAVO does for the slots of a block what layOutGeneric and copyGeneric
// do, hideAVO what hideGeneric does; a test compares them. gen/asm/blind writes
// them.
//
//go:noescape
func layOutAVO(job *blockJob)

//go:noescape
func hideAVO(job *blockJob)

// hide goes on with the block that layOut has laid out.
func (w *walk) hide(_ []bpf.Insn, list []uint8, numbers []uint32, _ []int32) (reserved int16) {
	if len(list) == 0 {
		return 0
	}
	_ = numbers[len(list)-1]
	w.job.numbers, w.job.rules = &numbers[0], &rules[0]
	hideAVO(&w.job)
	return int16(w.job.reserved)
}

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
