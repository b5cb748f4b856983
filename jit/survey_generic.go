//go:build !amd64 || purego

package jit

// surveyAndFuse surveys the instructions, and fuses most of what is to be fused.
func (c *compiler) surveyAndFuse() {
	c.surveyGeneric()
	c.fuseConstantsGeneric()
}
