//go:build !amd64 || purego

package blind

import "github.com/bpfjit/bpfjit/bpf"

func (w *walk) layOut(insns []bpf.Insn, flags []bpf.Flag, origin []int32, from int32, index []int32) (hidden, other []uint8) {
	hidden, other = w.layOutGeneric(insns, flags, index)
	w.copyGeneric(insns, flags, origin, from, index)
	return hidden, other
}

// blockJob is for assembly.
type blockJob struct{}
