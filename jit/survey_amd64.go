//go:build amd64 && !purego

package jit

import "github.com/bpfjit/bpfjit/encoder"

//go:generate go run -C=../gen ./asm/survey -out ../jit/survey_amd64.s

// These do what the functions of the same names without AVO do, some words a
// call; a test compares them. gen/asm/survey writes them.

//go:noescape
func surveyAVO(job *surveyJob)

//go:noescape
func fuseConstantsAVO(job *surveyJob)

// surveyAndFuse surveys the instructions, and fuses most of what is to be fused.
func (c *compiler) surveyAndFuse() {
	f := &c.fusing
	switch words := len(f.additions); {
	case !encoder.Vectors():
		c.surveyGeneric()
		c.fuseConstantsGeneric()
	case words <= surveyWords:
		f.job.next, f.job.stop = 0, words
		surveyAVO(&f.job)
		f.job.next = 0
		fuseConstantsAVO(&f.job)
	default:
		f.surveyParts()
		f.fuseParts()
	}
}

func (f *fusing) surveyParts() {
	for f.job.next = 0; f.goOn(); {
		surveyPart(&f.job)
	}
}

func (f *fusing) fuseParts() {
	for f.job.next = 0; f.goOn(); {
		fusePart(&f.job)
	}
}

// goOn prepares the next call, if there are words left.
func (f *fusing) goOn() bool {
	f.job.stop = min(f.job.next+surveyWords, len(f.additions))
	return f.job.next < len(f.additions)
}

// A goroutine can be preempted where it enters these, as in passes_amd64.go.

//go:noinline
func surveyPart(j *surveyJob) { surveyAVO(j) }

//go:noinline
func fusePart(j *surveyJob) { fuseConstantsAVO(j) }
