//go:build !amd64 || purego

package bpf

func classify(insns []Insn, blocks []block, r *refusal, half bool) {
	classifyGeneric(insns, blocks, r, half)
}
func (s *Survey) follow(next, stop int) bool { return s.followGeneric(next, stop) }
func (c *charger) walk(stop int)             { c.walkGeneric(stop) }
func count(s []int32, from int32)            { countGeneric(s, from) }

func (m *mover) moveRun(next int)                { m.moveRunGeneric(next) }
func (m *mover) mendJumps(next, stop int) *Error { return m.mendJumpsGeneric(next, stop) }
