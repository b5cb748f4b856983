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

	words int // in all
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
	var job surveyJob
	job.begin(c)
	for job.goOn() {
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
	var job surveyJob
	job.begin(c)
	for job.goOn() {
		fuseConstantsAVO(&job)
	}
}

// begin prepares a job for all words.
func (j *surveyJob) begin(c *compiler) {
	j.words = len(c.additions)
	if j.words == 0 {
		return
	}
	_, _ = c.targets[j.words*wordSlots], c.private[j.words*wordSlots]
	j.insns, j.targets, j.additions, j.slots = &c.private[0], &c.targets[0], &c.additions[0], len(c.insns)
	j.moves[31] = noMove
}

// goOn prepares the next call, if there are words left.
func (j *surveyJob) goOn() bool {
	j.stop = min(j.next+surveyWords, j.words)
	return j.next < j.words
}
