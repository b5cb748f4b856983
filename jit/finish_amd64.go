//go:build amd64 && !purego

package jit

import "github.com/bpfjit/bpfjit/encoder"

//go:generate go run -C=../gen ./asm/finish -out ../jit/finish_amd64.s

// finishAVO writes calls, charges and the epilogue up to a
// mark. gen/asm/finish writes it; a test compares it with finishGeneric.
//
//go:noescape
func finishAVO(job *passJob, code *Code, f *Func, stop int)

func (c *compiler) finishJoined(code *Code, f *Func, stop int) {
	if !encoder.Vectors() {
		c.finishGeneric(code, f, stop)
		return
	}
	finishAVO(&c.job, code, f, stop)
}
