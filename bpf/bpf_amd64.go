//go:build amd64 && !purego

package bpf

//go:generate go run -C=../gen ./asm/bpf -out ../bpf/bpf_amd64.s

import "golang.org/x/sys/cpu"

// assembly tells whether the processor has vectors of 32 bytes, BLSR, SHLX and
// LZCNT. Every one since 2013 has, but for some small ones.
var assembly = cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasLZCNT

// These do what their Go twins do, whose names end in Generic, as long as
// nothing is rare; a test compares them. gen/asm/bpf writes them.

//go:noescape
func surveyAVO(insns *Insn, blocks *block, n int, p *places)

//go:noescape
func checkAVO(insns *Insn, blocks *block, n int, p *places, r *refusal, half bool)

//go:noescape
func followAVO(insns *Insn, blocks *block, next, stop, n int) (wrong int)

//go:noescape
func countAVO(s *int32, n, from int)

//go:noescape
func chargeAVO(job *chargeJob)

//go:noescape
func moveAVO(insns, moved *Insn, index *int32, flags *Flag, n, at int)

//go:noescape
func mendAVO(job *mendJob)

// chargeJob is what chargeAVO works on. gen/asm/bpf has the offsets.
type chargeJob struct {
	insns   *Insn
	blocks  *block
	marks   *uint64
	lengths *int32 // of slot base
	charges *Charge
	flows   *flow
	base    int
	slots   int
	stop    int
	// Before and after: see charger.
	at     int
	length int
	left   int
}

// mendJob is what mendAVO works on.
type mendJob struct {
	insns  *Insn
	blocks *block
	index  *int32
	moved  *Insn
	// next is the block that comes next, stop where to stop.
	next, stop int
	known      int // elements of index
}

// halfBlock is how many slots the assembly looks at at once.
const halfBlock = blockSlots / 2

// classify fills in blocks from next up to stop, at most a chunk of them. It also
// finds suspects, if r says what is suspect.
func (s *Survey) classify(next, stop int, r *refusal) {
	insns, first := s.program.Insns, next*blockSlots
	n := min(stop*blockSlots, len(insns)) - first
	switch {
	case !assembly:
		s.classifyGeneric(next, stop, r)
	case len(insns) < halfBlock:
		s.classifyShort(r)
	case r == nil:
		surveyAVO(&insns[first], &s.blocks[next], n, &surveyed)
	default:
		checkAVO(&insns[first], &s.blocks[next], n, &surveyed, r, s.half(first))
	}
}

// classifyShort does it for a program that is shorter than what the assembly looks at.
// What is behind it is read from a copy. It looks like second halves.
func (s *Survey) classifyShort(r *refusal) {
	var padded [halfBlock]Insn
	n := copy(padded[:], s.program.Insns)
	b := &s.blocks[0]
	if r == nil {
		surveyAVO(&padded[0], b, halfBlock, &surveyed)
	} else {
		checkAVO(&padded[0], b, halfBlock, &surveyed, r, false)
	}
	b.seconds &= 1<<n - 1
	b.suspects &= 1<<n - 1
}

func (s *Survey) follow(stop int) {
	if !assembly {
		s.followGeneric(stop)
		return
	}
	insns := s.program.Insns
	wrong := followAVO(&insns[0], &s.blocks[0], s.landed, stop, len(insns))
	s.landed, s.astray = stop, wrong&1 != 0
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

func (c *charger) walk(stop int) {
	if !assembly {
		c.walkGeneric(stop)
		return
	}
	if c.at == stop {
		return
	}
	job := chargeJob{
		insns: &c.insns[0], blocks: &c.blocks[0], marks: &c.marks[0], lengths: &c.lengths[0],
		charges: &c.charges[0], flows: &flows[0],
		base: c.base, slots: len(c.insns), stop: stop, at: c.at, length: int(c.length), left: c.left,
	}
	chargeAVO(&job)
	c.at, c.length, c.left = job.at, int32(job.length), job.left
}

func (m *mover) moveRun(next int) {
	old, np := m.old, m.np
	if !assembly || old.Flags != nil || len(np.Flags) == 0 || m.origins {
		m.moveRunGeneric(next)
		return
	}
	// What it writes behind the run, it or place writes again; the new program is no
	// shorter there than the old one. Only behind the end there is nothing.
	n := (next - m.slot + moved - 1) &^ (moved - 1)
	if m.slot+n > len(old.Insns) {
		n -= moved
	}
	if n > 0 {
		moveAVO(&old.Insns[m.slot], &np.Insns[m.at], &m.index[m.slot], &np.Flags[m.at], n, m.at)
	}
	for slot, at := m.slot+n, m.at+n; slot < next; slot, at = slot+1, at+1 {
		np.Insns[at], m.index[slot], np.Flags[at] = old.Insns[slot], int32(at), 0
	}
}

// moved is how many slots moveAVO takes, or a multiple.
const moved = 8

func (m *mover) mendJumps(next, stop int) *Error {
	if !assembly || len(m.blocks) == 0 {
		return m.mendJumpsGeneric(next, stop)
	}
	// Each element of the index that is known is a slot of the new program, but the
	// last.
	job := mendJob{
		insns: &m.old.Insns[0], blocks: &m.blocks[0], index: &m.index[0], moved: &m.np.Insns[0], known: m.known(),
	}
	for job.next = next; job.next < stop; {
		job.stop = min(job.next+chunk, stop)
		mendAVO(&job)
		if job.next < job.stop {
			if err := m.mendJumpsGeneric(job.next, job.next+1); err != nil {
				return err
			}
			job.next++
		}
	}
	return nil
}
