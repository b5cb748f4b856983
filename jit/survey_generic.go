//go:build !amd64 || purego

package jit

func (c *compiler) survey()        { c.surveyGeneric() }
func (c *compiler) fuseConstants() { c.fuseConstantsGeneric() }
