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
	insns     *abi.Insn // room for whole words
	targets   *uint8
	additions *uint64

	slots      int
	next, stop int // in words

	held  [5]uint64 // bits of the last base, and whether r11 holds it still
	moves [32]uint8 // of the last 32 slots: dst, and noMove or twice that
}

// noMove is above dst where no move writes it.
const noMove = 0x40

// surveyAVO does what surveyGeneric does; a test compares them. gen/asm/survey
// writes it.
//
//go:noescape
func surveyAVO(job *surveyJob)

func (c *compiler) survey() {
	if !encoder.Vectors() {
		c.surveyGeneric()
		return
	}
	c.surveyASM()
}

func (c *compiler) surveyASM() {
	words := len(c.additions)
	if words == 0 {
		return
	}
	_ = c.targets[words*wordSlots]
	job := surveyJob{
		insns: &c.insns[:words*wordSlots][0], targets: &c.targets[0], additions: &c.additions[0],
		slots: len(c.insns),
	}
	job.moves[31] = noMove
	for job.next < words {
		job.stop = min(job.next+surveyWords, words)
		surveyAVO(&job)
	}
}
