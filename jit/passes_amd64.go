//go:build amd64 && !purego

package jit

//go:generate go run -C=../gen ./asm/passes -out ../jit/passes_amd64.s

// These are the functions of the same names without AVO, and do no more than
// those; a test compares them. gen/asm/passes writes them.

//go:noescape
func layOutAVO(job *passJob)

//go:noescape
func passAVO(job *passJob)

//go:noescape
func lastPassAVO(job *passJob)

func (c *compiler) layOutJumps() { layOutAVO(&c.job) }
func (c *compiler) pass()        { passAVO(&c.job) }
func (c *compiler) writeJumps()  { lastPassAVO(&c.job) }
