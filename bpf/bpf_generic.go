//go:build !amd64 || purego

package bpf

func (s *Survey) classify(next, stop int, r *refusal) { s.classifyGeneric(next, stop, r) }
func (s *Survey) follow(next, stop int) bool          { return s.followGeneric(next, stop) }
func (c *charger) walk()                              { c.walkGeneric() }
func count(s []int32, from int32)                     { countGeneric(s, from) }

func (p *patcher) move()     { p.moveGeneric() }
func (p *patcher) mendEasy() {}
