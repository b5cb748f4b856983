//go:build !amd64 || purego

package bpf

func (s *Survey) classify(next, stop int, r *refusal) { s.classifyGeneric(next, stop, r) }
func (s *Survey) follow(stop int)                     { s.followGeneric(stop) }

func (s *Survey) walk()                      {}
func (p *patcher) placeUsual(*Survey)        {}
func (p *patcher) mendEasy(*Survey, *uint64) {}

func (m *Mender) add(np []Insn, index []int32, first int, jumps []uint64) error {
	return m.addGeneric(np, index, first, jumps)
}
