//go:build !amd64 || purego

package bpf

func (s *Survey) assembled(*refusal) bool { return false }

func (s *Survey) walk()                      {}
func (p *patcher) placeUsual(*Survey)        {}
func (p *patcher) mendEasy(*Survey, *uint64) {}

func (m *Mender) add(np []Insn, index []int32, first int, jumps []uint64) error {
	return m.addGeneric(np, index, first, jumps)
}
