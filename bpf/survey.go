package bpf

import (
	"math/bits"
	"sync"
)

// Survey says where in a program the slots are that stages look for, so that
// none of them has to look at all slots: of nine one is a jump, and what else
// matters is rarer. It takes time in proportion to the slots, but little.
type Survey struct {
	program *Program
	slots   int // of the program
	blocks  []block

	functions functions // what Functions found
}

// block is what is known of 64 slots. Each word has a bit for each of them,
// and zeros behind the end of the program.
type block struct {
	jumps   uint64 // opcodes whose instructions all have a distance in off
	back    uint64 // of those, the slots whose off is negative
	exits   uint64 // EXIT
	firsts  uint64 // ldimm64
	seconds uint64 // opcode 0: second halves of constants
	others  uint64 // slots that isOther knows
	// suspects are slots that are perhaps no instruction of a dialect. Only
	// Check asks for them.
	suspects uint64
	_        uint64 // makes it a cache line
}

const blockSlots = 64

// Take makes s the survey of a program, whatever its slots are. s describes p
// until p changes. It uses the memory that s has again.
func (s *Survey) Take(p *Program) { s.take(p, nil) }

// take also finds suspects, if r says what is suspect.
func (s *Survey) take(p *Program, r *refusal) {
	n := len(p.Insns)
	s.program, s.slots, s.functions.known = p, n, false
	s.blocks = resize(s.blocks, (n+blockSlots-1)/blockSlots)
	whole := n / blockSlots
	classify(p.Insns[:whole*blockSlots], s.blocks[:whole], r)
	if rest := n % blockSlots; rest > 0 {
		// What is behind the program is read from a copy. It looks like second
		// halves.
		var last [blockSlots]Insn
		copy(last[:], p.Insns[whole*blockSlots:])
		s.blocks[whole] = block{}
		classify(last[:(rest+halfBlock-1)&^(halfBlock-1)], s.blocks[whole:], r)
		s.blocks[whole].seconds &= 1<<rest - 1
	}
}

// Program returns the program that was surveyed. It panics if the program has
// become longer or shorter.
func (s *Survey) Program() *Program {
	if s.program == nil || len(s.program.Insns) != s.slots {
		panic("BUG: a survey of another program")
	}
	return s.program
}

// AppendOthers appends to list the slots that lead somewhere by their imm or
// that lowering may replace: gotol, calls of functions of the program, addresses
// of such, may_goto and divisions. They are few.
func (s *Survey) AppendOthers(list []int32) []int32 {
	for b := range s.blocks {
		for set := s.blocks[b].others; set != 0; set &= set - 1 {
			list = append(list, int32(b*blockSlots+bits.TrailingZeros64(set)))
		}
	}
	return list
}

// surveys are those that functions of this package need for themselves.
var surveys = sync.Pool{New: func() any { return new(Survey) }}

// surveyOf returns a survey to be released.
func surveyOf(p *Program) *Survey {
	s := surveys.Get().(*Survey)
	s.Take(p)
	return s
}

func (s *Survey) release() {
	s.program = nil
	surveys.Put(s)
}
