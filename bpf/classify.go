package bpf

import "github.com/bpfjit/bpfjit/abi"

// places says which slots a survey is about. It is what the assembly looks up.
type places struct {
	// ops has the jumps, and the others but for their source.
	ops nibbles
	// source belongs to others: a slot is one of them if its opcode and its
	// source field have a bit in common. It stands there twice, as nibbles do.
	source [32]uint8
	kinds  [256]Kinds // of the opcodes of others
}

// Bits of places.ops. Those of source are others.
const (
	jumpBits = 0xc0
	call     = 0x01
	function = 0x02
	whatever = 0x3c
)

var surveyed = func() (p places) {
	p.ops.add(jumpBits, func(op int) bool { return reaches[op] == reachOff }, never)
	p.ops.add(call, func(op int) bool { return op == abi.OpCall }, never)
	p.ops.add(function, func(op int) bool { return op == abi.OpLdImm64 }, never)
	p.ops.add(whatever, func(op int) bool {
		return op == abi.OpGotol || op == abi.OpMayGoto || IsDivision(uint8(op))
	}, never)
	for i := range p.source {
		p.source[i] = whatever
		switch i & 15 {
		case abi.CallLocal:
			p.source[i] |= call
		case abi.Imm64Func:
			p.source[i] |= function
		}
	}
	p.kinds = kinds
	return p
}()

func never(int) bool { return false }

// IsDivision reports whether an opcode is one of DIV, SDIV, MOD and SMOD.
func IsDivision(op uint8) bool {
	class, what := op&abi.ClassMask, op&abi.OpMask
	return (class == abi.ClassALU || class == abi.ClassALU64) && (what == 0x30 || what == 0x90)
}

// look fills in the next blocks up to stop.
func (s *Survey) look(stop int, r *refusal) {
	suspects, second := uint64(0), uint64(0) // second is 1 if the next slot should be a second half
	if s.half(s.looked * blockSlots) {
		second = 1
	}
	insns := s.program.Insns
	for k := s.looked; k < stop; k++ {
		b := block{}
		for i, in := range insns[k*blockSlots : min((k+1)*blockSlots, len(insns))] {
			place := surveyed.ops.of(in.Op)
			jump := bit(place & jumpBits)
			b.jumps |= jump << i
			b.back |= jump & uint64(uint16(in.Off)>>15) << i
			b.exits |= is(in.Op, abi.OpExit) << i
			b.seconds |= is(in.Op, 0) << i
			b.others |= bit(place&surveyed.source[in.Src()]) << i
			if r != nil {
				b.suspects |= (bit(r.suspect(in)) | (second ^ is(in.Op, 0))) << i
			}
			second = is(in.Op, abi.OpLdImm64)
		}
		s.blocks[k] = b
		suspects |= b.suspects
	}
	s.looked, s.suspects = stop, suspects != 0
}

// bit returns 1 if any of the bits is set.
func bit(set uint8) uint64 { return uint64(-uint32(set) >> 31) }

// is returns 1 if a and b are the same.
func is(a, b uint8) uint64 { return 1 - bit(a^b) }
