package jit

import (
	"encoding/binary"
	"slices"

	"github.com/bpfjit/bpfjit/encoder"
)

// done is what of the lists of a compiler stands in the code.
type done struct{ others, charges int }

// Epilogues are short. How long they are can't be foreseen, so they are copied with what
// is behind, which stays as it is in the code.
const usualEpilogue = 16 // bytes; kernelEpilogue has no longer ones that finish writes

// finish completes what is joined up to a mark: plain calls, as long as there is nothing
// else among the others, charges and their cold code, and behind the last mark the
// epilogue, if it is no jump that someone has to note.
func (c *compiler) finish(code *Code, f *Func, stop int) {
	c.prepareFinish(code)
	c.finishJoined(code, f, stop)
}

// prepareFinish makes room for the relocations of all others, and for a group of calls,
// which assembly writes at once.
func (c *compiler) prepareFinish(code *Code) {
	code.Relocs = slices.Grow(code.Relocs, len(c.others)-c.job.done.others+group)
}

// overlaid is how many charges have cold code where joining overwrites what is there.
const overlaid = (encoder.Slack + coldSize - 1) / coldSize

// finishOverlaid writes charges again whose cold code was written before the last part
// of the function was joined.
func (c *compiler) finishOverlaid(code *Code, f *Func) {
	done := c.job.done.charges
	if again := min(overlaid, done); again > 0 {
		c.job.done.charges = 0
		c.finish(code, f, int(c.charges[again-1].mark)+1)
		c.job.done.charges = done
	}
}

// finishGeneric is finishAVO in Go.
func (c *compiler) finishGeneric(code *Code, f *Func, stop int) {
	c.writeCalls(code, f, stop)
	c.writeCharges(code, f, stop)
	if j := &c.job; stop >= j.count && j.exitOp == opCall && j.firstExit != noExit {
		end := int(code.Ends[f.Start+int(j.firstExit)])
		copy(code.Bytes[end-len(c.job.frame.epilogue):], c.job.frame.epilogue)
	}
}

// behind returns the slot behind the marks up to one.
func (c *compiler) behind(stop int) int {
	if stop == 0 {
		return 0
	}
	return int(c.draft.Marks[stop-1].Slot) + 1
}

// writeCalls writes plain calls up to a mark, as long as there is nothing else.
func (c *compiler) writeCalls(code *Code, f *Func, stop int) {
	behind := c.behind(stop)
	for ; c.job.done.others < len(c.others); c.job.done.others++ {
		if other := c.others[c.job.done.others]; other&isPlain == 0 || !c.writeCall(code, f, other, behind) {
			break
		}
	}
}

// writeCall writes a plain call in front of the slot behind, of which only the relocation
// is left: the gap was E8 and 0. Otherwise it returns false.
func (c *compiler) writeCall(code *Code, f *Func, call uint32, behind int) bool {
	slot := int(call & plainSlot)
	if slot >= behind {
		return false
	}
	slot += f.Start
	kind := RelocKind(call >> plainShift & 3)
	code.Relocs = append(code.Relocs, Reloc{Slot: slot, Offset: code.Ends[slot] - 4, Kind: kind})
	return true
}

// writeCharges writes the charges up to a mark: jumps to cold code, and that code.
func (c *compiler) writeCharges(code *Code, f *Func, stop int) {
	b := code.Bytes
	for ; c.job.done.charges < len(c.charges); c.job.done.charges++ {
		charge := c.charges[c.job.done.charges]
		if int(charge.mark) >= stop {
			break
		}
		at := int(f.Cold) + c.job.done.charges*coldSize
		back := int(code.Ends[f.Start+int(c.draft.Marks[charge.mark].Slot)])
		jump := b[back-encoder.LongJcc : back]
		binary.LittleEndian.PutUint16(jump, opJbLong)
		binary.LittleEndian.PutUint32(jump[2:], uint32(at-back))
		code := b[at : at+coldSize]
		copy(code, cold[:])
		binary.LittleEndian.PutUint32(code[coldAsks:], uint32(charge.n))
		binary.LittleEndian.PutUint32(code[coldBack:], uint32(back-at-coldSize))
	}
}
