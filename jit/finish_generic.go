//go:build !amd64 || purego

package jit

func (c *compiler) finishJoined(code *Code, f *Func, stop int) { c.finishGeneric(code, f, stop) }
