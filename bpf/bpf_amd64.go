//go:build amd64 && !purego

package bpf

//go:generate go run -C=../gen ./asm/bpf -out ../bpf/bpf_amd64.s

import "golang.org/x/sys/cpu"

// assembly tells whether the processor has vectors of 32 bytes and BLSR. Every
// one since 2013 has, but for some small ones.
var assembly = cpu.X86.HasAVX2 && cpu.X86.HasBMI1

// chunk is how many blocks the assembly goes over at once. It can't be
// preempted, and the collector should not have to wait for more than some
// microseconds.
const chunk = 64

// These do what their Go twins do, whose names end in Generic, as long as
// nothing is rare; a test compares them. gen/asm/bpf writes them.

//go:noescape
func surveyAVO(insns *Insn, blocks *block, n int, p *places)

//go:noescape
func checkAVO(insns *Insn, blocks *block, n int, p *places, r *refusal)

//go:noescape
func landingAVO(insns *Insn, blocks *block, next, stop, n int) (wrong int)

//go:noescape
func countAVO(s *int32, n, from int)

//go:noescape
func chargeAVO(job *chargeJob) (done bool)

//go:noescape
func mendAVO(job *mendJob)

// chargeJob is what chargeAVO works on. gen/asm/bpf has the offsets.
type chargeJob struct {
	insns   *Insn
	blocks  *chargeBlock
	lengths *int32 // of slot 0
	flows   *flow
	slots   int
	// Before and after: see charger.
	at     int
	length int
}

// mendJob is what mendAVO works on.
type mendJob struct {
	insns  *Insn
	blocks *block
	index  *int32
	moved  *Insn
	// next is the block that comes next, stop where to stop.
	next, stop int
	length     int // of index
}

func classify(insns []Insn, blocks []block, r *refusal) {
	if !assembly {
		classifyGeneric(insns, blocks, r)
		return
	}
	for len(insns) > 0 {
		n := min(len(insns), chunk*blockSlots)
		_ = blocks[(n-1)/blockSlots]
		if r == nil {
			surveyAVO(&insns[0], &blocks[0], n/halfBlock, &surveyed)
		} else {
			checkAVO(&insns[0], &blocks[0], n/halfBlock, &surveyed, r)
		}
		insns, blocks = insns[n:], blocks[(n+blockSlots-1)/blockSlots:]
	}
}

func (s *Survey) landing() bool {
	if !assembly {
		return s.landingGeneric()
	}
	n := len(s.program.Insns)
	wrong := 0
	for next := 0; next < len(s.blocks) && wrong == 0; next += chunk {
		wrong = landingAVO(&s.program.Insns[0], &s.blocks[0], next, min(next+chunk, len(s.blocks)), n)
	}
	return wrong == 0
}

func count(s []int32, from int32) {
	if !assembly || len(s) < 8 {
		countGeneric(s, from)
		return
	}
	for ; len(s) >= 2*chunk*blockSlots; s = s[chunk*blockSlots:] {
		countAVO(&s[0], chunk*blockSlots, int(from))
		from += chunk * blockSlots
	}
	countAVO(&s[0], len(s), int(from))
}

func (c *charger) walk() {
	if !assembly {
		c.walkGeneric()
		return
	}
	job := chargeJob{
		insns: &c.insns[0], blocks: &c.blocks[0], lengths: &c.lengths[lengthsBefore], flows: &flows[0],
		slots: len(c.insns), at: c.at, length: int(c.length),
	}
	_, _ = c.blocks[(job.slots-1)/blockSlots], c.lengths[lengthsBefore+job.slots]
	for !chargeAVO(&job) {
		job.at++
	}
	c.at, c.length = job.at, int32(job.length)
}

func (m *mover) mendJumps(blocks []block, np *Program) *Error {
	if !assembly || len(blocks) == 0 {
		return m.mendJumpsGeneric(blocks, np, 0, len(blocks))
	}
	// Each element of the index is a slot of the new program, but the last.
	job := mendJob{
		insns: &m.old.Insns[0], blocks: &blocks[0], index: &m.index[0], moved: &np.Insns[0], length: len(m.index),
	}
	for job.next < len(blocks) {
		job.stop = min(job.next+chunk, len(blocks))
		mendAVO(&job)
		if job.next < job.stop {
			if err := m.mendJumpsGeneric(blocks, np, job.next, job.next+1); err != nil {
				return err
			}
			job.next++
		}
	}
	return nil
}
