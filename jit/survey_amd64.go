//go:build amd64 && !purego

package jit

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/encoder"
)

//go:generate go run -C=../gen ./asm/survey -out ../jit/survey_amd64.s

// surveyWords is how many words a call looks at: assembly can't be preempted,
// and the collector should not have to wait for more than some microseconds.
const surveyWords = 64

// surveyJob is what surveyAVO works on. gen/asm/survey has the offsets.
type surveyJob struct {
	insns     *abi.Insn // whole words, and one more
	targets   *uint8
	additions *uint64

	slots      int
	next, stop int // in words

	held  [5]uint64 // bits of the last base, and whether r11 holds it still
	moves [32]uint8 // of the last 32 slots: dst, and noMove or twice that
}

// noMove is above dst where no move writes it.
const noMove = 0x40

// These do what the functions of the same names without AVO do, some words a
// call; a test compares them. gen/asm/survey writes them.

//go:noescape
func surveyAVO(job *surveyJob)

//go:noescape
func fuseConstantsAVO(job *surveyJob)

func (c *compiler) survey() {
	if !encoder.Vectors() {
		c.surveyGeneric()
		return
	}
	c.surveyASM()
}

func (c *compiler) surveyASM() {
	job := c.surveyJob()
	for job.goOn(c) {
		surveyAVO(&job)
	}
}

func (c *compiler) fuseConstants() {
	if !encoder.Vectors() {
		c.fuseConstantsGeneric()
		return
	}
	c.fuseConstantsASM()
}

func (c *compiler) fuseConstantsASM() {
	job := c.surveyJob()
	for job.goOn(c) {
		fuseConstantsAVO(&job)
	}
}

// surveyJob prepares a job.
func (c *compiler) surveyJob() (job surveyJob) {
	words := len(c.additions)
	if words == 0 {
		return job
	}
	_, _ = c.targets[words*wordSlots], c.private[words*wordSlots]
	job.insns, job.targets, job.additions, job.slots = &c.private[0], &c.targets[0], &c.additions[0], len(c.insns)
	job.moves[31] = noMove
	return job
}

// goOn tells whether there are words left, and prepares the next call.
func (j *surveyJob) goOn(c *compiler) bool {
	words := len(c.additions)
	j.stop = min(j.next+surveyWords, words)
	return j.next < words
}
