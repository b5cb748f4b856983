//go:build !amd64 || purego

package bpf

func (s *Survey) classify(next, stop int, r *refusal) { s.classifyGeneric(next, stop, r) }
func (s *Survey) follow(stop int)                     { s.followGeneric(stop) }
func (c *charger) walk(stop int)                      { c.walkGeneric(stop) }
func count(s []int32, from int32)                     { countGeneric(s, from) }

func (m *mover) moveRun(next int)                { m.moveRunGeneric(next) }
func (m *mover) mendJumps(next, stop int) *Error { return m.mendJumpsGeneric(next, stop) }
