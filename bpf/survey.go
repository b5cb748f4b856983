package bpf

import (
	"math"
	"math/bits"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
)

// Survey says where in a program the slots are that stages look for, so that
// none of them has to look at all slots: of nine one is a jump, and what else
// matters is rarer. It takes time in proportion to the slots, but little.
type Survey struct {
	program *Program
	slots   int // of the program
	blocks  []block
	others  []Other
	kinds   Kinds // of others
	// landed is how many blocks' jumps were followed, see land. One of them is
	// astray if it leads to no instruction.
	landed int
	astray bool

	dialect   Dialect   // that quick goes by
	functions functions // what Functions found
	charger   charger   // what AppendCharges works with
}

// block is what is known of 64 slots. Each word has a bit for each of them,
// and zeros behind the end of the program, but for suspects.
type block struct {
	jumps   uint64 // opcodes whose instructions all have a distance in off
	back    uint64 // of those, the slots whose off is negative
	exits   uint64 // EXIT
	seconds uint64 // opcode 0: second halves of constants
	others  uint64 // see Others
	// suspects are slots that are perhaps no instruction of a dialect, or no half
	// of a constant where one should be, or the reverse. Only Check asks for them.
	suspects uint64
	// points are where jumps back lead to, found by following them; a charger adds
	// what else is a charge point.
	points uint64
	// least is the first slot that jumps back lead to, most the last one that jumps
	// lead to, found by following them. Without such they are out of everyone's way.
	least, most int32
}

const (
	blockSlots = 64
	// chunk is how many blocks are gone over at once. Assembly can't be preempted,
	// and the collector should not have to wait for more than some microseconds.
	chunk = 64
	// blocksAhead is how many blocks ahead of one its jumps lead at most, and one
	// more: distances have 16 bits.
	blocksAhead = 1<<15/blockSlots + 1
)

// Take makes s the survey of a program, whatever its slots are. s describes p
// until p changes. It uses the memory that s has again.
func (s *Survey) Take(p *Program) {
	s.begin(p)
	for next := 0; next < len(s.blocks); {
		stop := min(next+chunk, len(s.blocks))
		s.classify(next, stop, nil)
		for ; next < stop; next++ {
			s.list(next)
		}
	}
}

// begin makes room for the survey of a program.
func (s *Survey) begin(p *Program) {
	n := len(p.Insns)
	s.program, s.slots, s.functions.known = p, n, false
	k := (n + blockSlots - 1) / blockSlots
	if k > cap(s.blocks) {
		s.blocks = make([]block, k+k/4)
	}
	s.blocks = s.blocks[:k]
	s.others, s.kinds, s.landed, s.astray = s.others[:0], 0, 0, false
}

// half reports whether a first half of a constant stands in front of a slot.
func (s *Survey) half(slot int) bool { return slot > 0 && s.program.Insns[slot-1].Op == abi.OpLdImm64 }

// exits reports whether a slot is an EXIT.
func (s *Survey) exits(slot int) bool {
	return s.blocks[slot/blockSlots].exits>>(slot%blockSlots)&1 != 0
}

// land follows the jumps of the blocks in front of stop: it sets points, least
// and most. A jump leads no further than blocksAhead, which must have
// been classified. It reports whether no jump so far is astray.
func (s *Survey) land(stop int) bool {
	for s.landed < stop && !s.astray {
		s.follow(min(s.landed+chunk, stop))
	}
	return !s.astray
}

// followGeneric does it up to stop, but may give up at a jump that is astray: it
// leads out of the program, or to the second half of a constant.
func (s *Survey) followGeneric(stop int) {
	insns, blocks := s.program.Insns, s.blocks
	var seconds uint64
	for k := s.landed; k < stop; k++ {
		b := &blocks[k]
		b.least, b.most = math.MaxInt32, -1
		for set := b.jumps; set != 0; set &= set - 1 {
			slot := k*blockSlots + bits.TrailingZeros64(set)
			to := slot + 1 + int(insns[slot].Off)
			if uint(to) >= uint(len(insns)) {
				s.astray = true
				return
			}
			seconds |= blocks[to/blockSlots].seconds >> (to % blockSlots)
			b.most = max(b.most, int32(to))
		}
		for set := b.back; set != 0; set &= set - 1 {
			slot := k*blockSlots + bits.TrailingZeros64(set)
			to := slot + 1 + int(insns[slot].Off)
			b.least = min(b.least, int32(to))
			blocks[to/blockSlots].points |= 1 << (to % blockSlots)
		}
	}
	s.landed, s.astray = stop, seconds&1 != 0
}

// Program returns the program that was surveyed. It panics if the program has
// become longer or shorter.
func (s *Survey) Program() *Program {
	if s.program == nil || len(s.program.Insns) != s.slots {
		panic("BUG: a survey of another program")
	}
	return s.program
}

// Other is a slot that leads somewhere by its imm, or that lowering may
// replace.
type Other struct {
	Slot int32
	Insn Insn
}

// Others returns, in order, all gotol, calls of functions of the program,
// addresses of such, may_goto and divisions. They are few. The list is good
// until s is used for another program.
func (s *Survey) Others() []Other { return s.others }

// list adds the others of a block.
func (s *Survey) list(k int) {
	for set := s.blocks[k].others; set != 0; set &= set - 1 {
		slot := k*blockSlots + bits.TrailingZeros64(set)
		in := s.program.Insns[slot]
		s.others = append(s.others, Other{int32(slot), in})
		s.kinds |= kinds[in.Op]
	}
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
