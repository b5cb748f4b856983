package testprog

import (
	"fmt"
	"math/rand/v2"

	"github.com/bpfjit/bpfjit/abi"
)

// Kind is the program type of a Program, as bpf(2) numbers it.
type Kind uint32

// The types that Verified makes programs of.
const (
	SocketFilter Kind = 1
	SchedCLS     Kind = 3
	XDP          Kind = 6
)

// Program is a random program with its inputs.
type Program struct {
	// Name tells how to make the program again.
	Name string
	Kind Kind
	// Insns is the program, in the Source dialect.
	Insns []abi.Insn
	// Packet is the packet of a verified program, or the memory of a wild one
	// (R1 is its address, R2 its length).
	Packet []byte
	// Folded says that the program leaves its registers and its stack in the
	// packet, so that comparing packets compares them.
	Folded bool
	// Wild says that the program was made to misbehave: it may fault or run
	// out of budget.
	Wild bool
}

// Features are what a random program may contain.
type Features uint32

// The features of verified programs. The zero value of a Limits allows all.
const (
	Helpers     Features = 1 << iota // calls of helpers 5, 7 and 8; results unused
	Calls                            // functions of its own
	Loops                            // bounded loops
	Atomics                          // on the stack
	MayGotos                         // may_goto
	Edges                            // jumps of chosen length in bytes
	PacketIO                         // direct packet access; not in socket filters
	AllFeatures = Helpers | Calls | Loops | Atomics | MayGotos | Edges | PacketIO
)

// Limits restrict random programs. The zero value restricts nothing.
type Limits struct {
	// Without names features that must not occur.
	Without Features
	// MinSize and MaxSize are in slots. 0: 5 and 4,000.
	MinSize, MaxSize int
	// Kinds to choose from. nil: all three.
	Kinds []Kind
}

// Bounds of a verified program.
const (
	minVerified = 5
	maxVerified = 4000
	// tiny programs have no packet and no stack.
	tinyVerified = 40
	// stepLimit is how many steps the verifier may need, by our estimate: a
	// part of its limit of 1,000,000, since it walks some code twice.
	stepLimit = 60000
)

// Verified makes a random program that the verifier accepts, as program i of
// a seed. It has no undefined behaviour: every run on the same packet gives
// the same R0 and the same packet.
//
// The main program, in order:
//
//	check the packet's length, else go to the short exit
//	save the packet pointer, fill the frame, load the registers
//	random segments: arithmetic, memory, branches, loops, calls, …
//	store registers and frame into the packet, fold them into R0
func Verified(seed, i uint64, l Limits) Program {
	r := Rand(seed, i)
	lo, hi := l.MinSize, l.MaxSize
	if lo == 0 {
		lo = minVerified
	}
	if hi == 0 {
		hi = maxVerified
	}
	kinds := l.Kinds
	if kinds == nil {
		kinds = []Kind{XDP, XDP, SchedCLS, SchedCLS, SocketFilter}
	}
	v := &verified{r: r, has: AllFeatures &^ l.Without, kind: pick(r, kinds...), stepLimit: stepLimit}
	if v.kind == SocketFilter || chance(r, 10) {
		v.has &^= PacketIO
	}
	size := logUniform(r, lo, hi)
	p := Program{Name: fmt.Sprintf("verified seed=%d i=%d", seed, i), Kind: v.kind}
	for {
		// What comes at the end isn't known in advance, so a program that
		// comes out too long is made again, shorter.
		insns, packet := v.program(size)
		if len(insns) <= hi {
			p.Insns, p.Packet, p.Folded = insns, packet, v.folded
			return p
		}
		size = size * 3 / 4
	}
}

// logUniform returns a number from lo to hi with equal chances for each
// factor of two.
func logUniform(r *rand.Rand, lo, hi int) int {
	n, x := 0, lo
	for x*2 <= hi {
		x *= 2
		n++
	}
	base := lo << r.IntN(n+1)
	return min(base+r.IntN(base+1), hi)
}

// verified is the state of one program.
type verified struct {
	r          *rand.Rand
	has        Features
	kind       Kind
	packetSize int // bytes that the program may touch
	funcs      []*vfunc
	folded     bool
	stepLimit  int

	// Wild programs: no verifier will see them, and things happen on purpose.
	free   bool
	events int // of 1,000 segments
}

// program makes the functions and joins them.
func (v *verified) program(size int) ([]abi.Insn, []byte) {
	v.funcs, v.folded = nil, false
	v.packetSize = pick(v.r, foldSize, 128, 200, 256, 512, 1024)
	if size < tinyVerified {
		return v.tiny(size), v.packet()
	}
	main := v.newFunc(nil, size)
	if v.has&Calls != 0 && size >= 3*tinyVerified && chance(v.r, 60) {
		// Functions that are called come first, since calling them costs
		// what they cost.
		share := size / 2
		for n := between(v.r, 1, 5); n > 0 && share > 20; n-- {
			s := between(v.r, 10, min(share, 200))
			f := v.newFunc(v.signature(), s)
			f.callees = v.funcs
			f.body()
			v.funcs = append(v.funcs, f)
			share -= len(f.e.insns)
		}
		main.size = size/2 + share
		main.callees = v.funcs
	}
	main.body()
	insns := v.link(main)
	return insns, v.packet()
}

// packet makes the packet: rarely one that is too short for the program.
func (v *verified) packet() []byte {
	p := make([]byte, v.packetSize+v.r.IntN(64))
	if chance(v.r, 3) {
		p, v.folded = p[:between(v.r, 14, v.packetSize-1)], false
	}
	for i := range p {
		p[i] = byte(v.r.Uint32())
	}
	return p
}

// link puts the functions behind the main program and resolves calls.
func (v *verified) link(main *vfunc) []abi.Insn {
	var out []abi.Insn
	start := map[*vfunc]int{}
	funcs := append([]*vfunc{main}, v.funcs...)
	// A function that nobody calls would be refused.
	called := map[*vfunc]bool{}
	mark(main, called)
	for _, f := range funcs {
		if !called[f] {
			continue
		}
		if err := f.e.resolve(); err != nil {
			panic("BUG: " + err.Error())
		}
		start[f] = len(out)
		out = append(out, f.e.insns...)
	}
	for _, f := range funcs {
		for _, c := range f.calls {
			if called[f] {
				at := start[f] + c.slot
				out[at].Imm = int32(start[c.callee] - at - 1)
			}
		}
	}
	return out
}

func mark(f *vfunc, called map[*vfunc]bool) {
	called[f] = true
	for _, c := range f.calls {
		if !called[c.callee] {
			mark(c.callee, called)
		}
	}
}

// tiny makes a program of constants, arithmetic and forward jumps.
func (v *verified) tiny(size int) []abi.Insn {
	f := v.newFunc(nil, size)
	n := between(v.r, 1, min(4, size-2))
	for _, reg := range v.r.Perm(10)[:n] {
		f.setScalar(uint8(reg))
	}
	if f.regs[0].role != scalar {
		f.setScalar(0)
	}
	end := max(size-2, len(f.e.insns)+1)
	for len(f.e.insns) < end {
		if left := end - len(f.e.insns); left > 3 && chance(v.r, 20) {
			skip := f.e.newLabel()
			f.branch(skip)
			before := f.regs
			for n := between(v.r, 0, min(left-2, 5)); n > 0; n-- {
				f.alu()
			}
			f.e.place(skip)
			f.regs = meet(before, f.regs)
		} else {
			f.alu()
		}
	}
	f.foldInto(0, 2)
	for len(f.e.insns) < minVerified-1 {
		f.alu()
	}
	f.e.emit(abi.Insn{Op: abi.OpExit})
	return v.link(f)
}
