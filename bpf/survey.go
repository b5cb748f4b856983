package bpf

import (
	"math"
	"math/bits"
	"slices"
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
	// looked is how many blocks were looked at, landed how many blocks' jumps were
	// followed.
	looked, landed int
	kinds          Kinds // of others
	astray         bool  // some jump leads to no instruction
	suspects       bool  // some slot is suspect of the blocks that were looked at last

	dialect   Dialect   // that quick goes by
	functions functions // what Functions found
	charger   charger   // what AppendCharges works with
}

// block is what is known of 64 slots. Each word has a bit for each of them,
// and zeros behind the end of the program.
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
	// lag is how many blocks following jumps stays behind looking at slots: more than
	// jumps lead ahead, whose distances have 16 bits, and whole chunks.
	lag = 1<<15/blockSlots + chunk
)

// Take makes s the survey of a program, whatever its slots are. s describes p
// until p changes. It uses the memory that s has again.
func (s *Survey) Take(p *Program) {
	s.begin(p)
	for s.landed < len(s.blocks) {
		s.makeRoom(0)
		if !s.assembled(nil) {
			s.part(nil)
		}
	}
}

// begin makes s the survey of a program, of whose blocks none was looked at.
func (s *Survey) begin(p *Program) {
	n := (len(p.Insns) + blockSlots - 1) / blockSlots
	if n >= cap(s.blocks) {
		s.makeRoom(n)
	}
	s.program, s.slots, s.functions.known = p, len(p.Insns), false
	s.blocks = s.blocks[:n]
	s.others = s.others[:0]
	s.looked, s.landed, s.kinds, s.astray, s.suspects = 0, 0, 0, false, false
}

// makeRoom makes room for n blocks, some more if there wasn't, and for the others of
// the next part. Assembly reads a block more than there are.
func (s *Survey) makeRoom(n int) {
	if n >= cap(s.blocks) {
		s.blocks, s.others = make([]block, n+n/4+1), s.others[:0]
	}
	others := blockSlots * min(chunk, cap(s.blocks)) // whatever part it is
	if others > cap(s.others)-len(s.others) {
		s.others = slices.Grow(s.others, others)
	}
}

// half reports whether a first half of a constant stands in front of a slot.
func (s *Survey) half(slot int) bool { return slot > 0 && s.program.Insns[slot-1].Op == abi.OpLdImm64 }

// exits reports whether a slot is an EXIT.
func (s *Survey) exits(slot int) bool {
	return s.blocks[slot/blockSlots].exits>>(slot%blockSlots)&1 != 0
}

// part goes on with a survey. It looks at the next blocks, at most a chunk of
// them, and lists their others; r says which slots are suspect, without it none is.
// Then it follows the jumps of the next blocks, at most a chunk, too, while what they
// lead to may be in the cache. After a jump that is astray none is followed.
func (s *Survey) part(r *refusal) {
	next, stop := s.looked, min(s.looked+chunk, len(s.blocks))
	if next < stop {
		s.look(stop, r)
	}
	for ; next < stop; next++ {
		s.list(next)
	}
	if stop < len(s.blocks) {
		stop -= lag
	}
	next, s.landed = s.landed, max(s.landed, min(s.landed+chunk, stop))
	if !s.astray {
		s.follow(next, s.landed)
	}
}

// follow follows jumps of blocks from next up to stop: it sets points, least and most.
// But it may give up at a jump that is astray: it leads out of the program, or to the
// second half of a constant.
func (s *Survey) follow(next, stop int) {
	insns, blocks := s.program.Insns, s.blocks
	var seconds uint64
	for k := next; k < stop; k++ {
		b := &blocks[k]
		b.least, b.most = math.MaxInt32, -1
		for set := b.jumps; set != 0; set &= set - 1 {
			slot := k*blockSlots + bits.TrailingZeros64(set)
			to := slot + 1 + int(insns[slot].Off)
			if uint(to) >= uint(len(insns)) {
				s.astray = true
				return
			}
			target, bit := &blocks[to/blockSlots], to%blockSlots
			seconds |= target.seconds >> bit
			b.most = max(b.most, int32(to))
			if to <= slot {
				b.least = min(b.least, int32(to))
				target.points |= 1 << bit
			}
		}
	}
	s.astray = seconds&1 != 0
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
