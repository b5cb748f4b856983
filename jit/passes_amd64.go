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

// partMarks is how many marks a call looks at: assembly can't be preempted, and the
// collector should not have to wait for more than some microseconds.
const partMarks = 4096

func (c *compiler) layOutJumps() { c.job.inParts(layOutPart) }

func (c *compiler) pass() {
	c.job.next, c.job.sum = 0, 0
	c.job.inParts(passPart)
}

func (c *compiler) writeJumps() { c.job.inParts(lastPassPart) }

// A goroutine can be preempted where it enters these: functions that call others and
// aren't inlined ask whether it is to.

//go:noinline
func layOutPart(j *passJob) { layOutAVO(j) }

//go:noinline
func passPart(j *passJob) { passAVO(j) }

//go:noinline
func lastPassPart(j *passJob) { lastPassAVO(j) }

// inParts calls f for the marks from next on, part by part, as long as it gets to
// the end of a part.
func (j *passJob) inParts(f func(*passJob)) {
	all := j.count
	for {
		j.count = min(j.next+partMarks, all)
		f(j)
		over := j.next < j.count || j.next == all
		j.count = all
		if over {
			return
		}
	}
}
