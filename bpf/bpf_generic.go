//go:build !amd64 || purego

package bpf

func classify(insns []Insn, blocks []block, r *refusal) { classifyGeneric(insns, blocks, r) }
func (s *Survey) landing() bool                         { return s.landingGeneric() }
func (c *charger) walk()                                { c.walkGeneric() }
func count(s []int32, from int32)                       { countGeneric(s, from) }

func (m *mover) mendJumps(blocks []block, np *Program) *Error {
	return m.mendJumpsGeneric(blocks, np, 0, len(blocks))
}
