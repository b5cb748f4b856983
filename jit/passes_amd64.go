//go:build amd64 && !purego

package jit

import "github.com/bpfjit/bpfjit/encoder"

//go:generate go run -C=../gen ./asm/passes -out ../jit/passes_amd64.s

// These are the functions of the same names without AVO, and do no more than
// those; a test compares them. gen/asm/passes writes them.

//go:noescape
func layOutAVO(job *passJob) (more bool)

//go:noescape
func passAVO(job *passJob) (more bool)

//go:noescape
func passesAVO(job *passJob) (ok bool)

//go:noescape
func lastPassAVO(job *passJob) (more bool)

func (c *compiler) layOutJumps() {
	for more := layOutAVO(&c.job); more; {
		more = layOutPart(&c.job)
	}
}

func (c *compiler) pass() {
	c.job.next, c.job.sum = 0, 0
	for more := passAVO(&c.job); more; {
		more = passPart(&c.job)
	}
}

func (c *compiler) shortPasses() (ok bool) {
	if !encoder.Vectors() {
		return c.passesGeneric()
	}
	return passesAVO(&c.job)
}

func (c *compiler) writeJumps() {
	if !encoder.Vectors() {
		c.lastPassGeneric()
		return
	}
	for more := lastPassAVO(&c.job); more; {
		more = lastPassPart(&c.job)
	}
}

// A goroutine can be preempted where it enters these: functions that call others and
// aren't inlined ask whether it is to.

//go:noinline
func layOutPart(j *passJob) (more bool) { return layOutAVO(j) }

//go:noinline
func passPart(j *passJob) (more bool) { return passAVO(j) }

//go:noinline
func lastPassPart(j *passJob) (more bool) { return lastPassAVO(j) }
