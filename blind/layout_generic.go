//go:build !amd64 || purego

package blind

import "github.com/bpfjit/bpfjit/bpf"

func (w *walk) layOut(insns []bpf.Insn, flags []bpf.Flag, origin []int32, from int32, index []int32) (hidden, other []uint8) {
	hidden, other = w.layOutGeneric(insns, flags, index)
	w.copyGeneric(insns, flags, origin, from, index)
	return hidden, other
}

func (w *walk) hide(insns []bpf.Insn, list []uint8, numbers []uint32, index []int32) (reserved int16) {
	return w.hideGeneric(insns, list, numbers, index)
}

// blockJob is for assembly.
type blockJob struct{}
