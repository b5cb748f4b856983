//go:build !amd64 || purego

package jit

func (c *compiler) layOutJumps()           { c.layOutGeneric() }
func (c *compiler) pass()                  { c.passGeneric() }
func (c *compiler) shortPasses() (ok bool) { return c.passesGeneric() }
func (c *compiler) writeJumps()            { c.lastPassGeneric() }
