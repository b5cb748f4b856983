//go:build amd64 && !purego

package bpf

//go:generate go run -C=../gen ./asm/bpf -out ../bpf/classify_amd64.s

import "golang.org/x/sys/cpu"

// assembly tells whether the processor has vectors of 32 bytes. Every one since
// 2013 has, but for some small ones.
var assembly = cpu.X86.HasAVX2

// classifyChunk is how many blocks the assembly fills in at once. It can't be
// preempted, and the collector should not have to wait for more than some
// microseconds.
const classifyChunk = 64

// These do for n blocks, at least one, what classifyGeneric does, without and
// with a refusal; a test compares them. gen/asm/bpf writes them.

//go:noescape
func surveyAVO(insns *Insn, blocks *block, n int, p *places)

//go:noescape
func checkAVO(insns *Insn, blocks *block, n int, p *places, r *refusal)

func classify(insns []Insn, blocks []block, r *refusal) {
	if !assembly {
		classifyGeneric(insns, blocks, r)
		return
	}
	for len(blocks) > 0 {
		n := min(len(blocks), classifyChunk)
		_ = insns[n*blockSlots-1]
		if r == nil {
			surveyAVO(&insns[0], &blocks[0], n, &surveyed)
		} else {
			checkAVO(&insns[0], &blocks[0], n, &surveyed, r)
		}
		insns, blocks = insns[n*blockSlots:], blocks[n:]
	}
}
