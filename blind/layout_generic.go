//go:build !amd64 || purego

package blind

import "github.com/bpfjit/bpfjit/bpf"

func (w *walk) layOut(_ *blockJob, insns []bpf.Insn, flags []bpf.Flag, index []int32) {
	w.layOutGeneric(insns, flags, index)
}

func (w *walk) hide(_ *blockJob, insns []bpf.Insn, numbers []byte, index []int32) (reserved uint32) {
	return w.hideGeneric(insns, numbers, index)
}

// blockJob and tail are for assembly.
type (
	blockJob struct{}
	tail     struct{}
)
