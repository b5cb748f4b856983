//go:build amd64 && !purego

package jit

import "github.com/bpfjit/bpfjit/encoder"

//go:generate go run -C=../gen ./asm/survey -out ../jit/survey_amd64.s

// surveyWords is how many words a call looks at: assembly can't be preempted,
// and the collector should not have to wait for more than some microseconds.
const surveyWords = 64

// These do what the functions of the same names without AVO do, some words a
// call; a test compares them. gen/asm/survey writes them.

//go:noescape
func surveyAVO(job *surveyJob)

//go:noescape
func fuseConstantsAVO(job *surveyJob)

// surveyAndFuse surveys the instructions, and fuses most of what is to be fused.
func (c *compiler) surveyAndFuse() {
	if !encoder.Vectors() {
		c.surveyGeneric()
		c.fuseConstantsGeneric()
		return
	}
	c.surveyASM()
	c.fuseConstantsASM()
}

func (c *compiler) surveyASM() {
	f := &c.fusing
	j := &f.job
	j.slots, j.held, j.moves[31] = len(c.insns), 0, noMove
	for j.next = 0; j.next < len(f.additions); {
		j.stop = min(j.next+surveyWords, len(f.additions))
		surveyAVO(j)
	}
}

func (c *compiler) fuseConstantsASM() {
	f := &c.fusing
	j := &f.job
	for j.next = 0; j.next < len(f.additions); {
		j.stop = min(j.next+surveyWords, len(f.additions))
		fuseConstantsAVO(j)
	}
}
