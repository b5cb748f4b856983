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
	f := &c.fusing
	for f.job.next = 0; f.goOn(); {
		surveyAVO(&f.job)
	}
	for f.job.next = 0; f.goOn(); {
		fuseConstantsAVO(&f.job)
	}
}

// goOn prepares the next call, if there are words left.
func (f *fusing) goOn() bool {
	f.job.stop = min(f.job.next+surveyWords, len(f.additions))
	return f.job.next < len(f.additions)
}
