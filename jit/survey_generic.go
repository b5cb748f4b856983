//go:build !amd64 || purego

package jit

func (c *compiler) survey() { c.surveyGeneric() }
