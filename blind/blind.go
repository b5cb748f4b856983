package blind

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// Rewrite returns p with its constants hidden; see Result.Rewrite.
func Rewrite(p *bpf.Program, rand io.Reader) (*bpf.Program, error) {
	r := new(Result)
	if err := r.Rewrite(p, rand); err != nil {
		return nil, err
	}
	return &r.Program, nil
}

// Result is a program whose constants are hidden.
type Result struct {
	Program bpf.Program
	// Index tells where each slot of the old program went: slot i became
	// Index[i] up to, not including, Index[i+1], of which the last is the
	// instruction itself. A jump to slot i leads to Index[i]. If the old program
	// has no Index of its own, that of Program is the same.
	Index []int32
	// Constants is how many constants are hidden, which is how many random
	// numbers were taken. A 64-bit constant is two.
	Constants int
	composed  []int32 // of Program, if the old program has an Index
	moved     bpf.MovedFuncs
	walk      *walk // its own, if it is used again
}

// MoveFunctions returns the functions of Program, if those of the old program
// were funcs. They are good until r is used again.
func (r *Result) MoveFunctions(funcs []bpf.Func) []bpf.Func { return r.moved.Move(funcs, r.Index) }

// Rewrite sets r to p with its constants hidden. p is a source program as
// lower.Lower left it, with all its functions, or one function of a
// translated program; it is not changed. A source program must have passed
// bpf.Check. A translated one that wouldn't pass is refused, or becomes one that
// wouldn't either, which jit.Compile sees. Time goes with the number of slots.
// The memory that r has is used again.
//
// With R a new random number and AX the internal register:
//
//	mov32, mov64 dst, 0        xor64 dst, dst
//	ALU dst, imm               mov AX, R^imm;   xor AX, R;   op dst, AX
//	if dst ? imm goto          mov AX, R^imm;   xor AX, R;   if dst ? AX goto
//	store imm                  mov64 AX, R^imm; xor64 AX, R; store AX
//	ldimm64 dst, upper half    mov64 AX, R^imm; xor64 AX, R; lsh64 AX, 32; mov64 dst, AX
//	             lower half    mov32 AX, R^imm; xor32 AX, R; or64 dst, AX
//
// where mov and xor are of the width of the instruction. The package comment
// says what is not hidden. What comes out uses AX or has no constant, so
// rewriting it again changes nothing.
//
// Each R is 4 bytes of rand, little-endian, in the order of the new program;
// no more is read. If rand is nil, they come from a cryptographic generator with
// a key from the system.
//
// The error is rand's, or a *bpf.Error: of bpf.Check about a program that isn't
// well-formed; about too many slots; or one that wraps bpf.ErrRange and names a jump
// of p whose distance no longer fits its field: 16 bits, or 32 in gotol, calls and
// address constants. Of r only Index and Constants are of use in the last case,
// nothing in the others.
func (r *Result) Rewrite(p *bpf.Program, rand io.Reader) error {
	if r.walk != nil {
		return r.walk.run(r, p, rand)
	}
	w := walks.Get().(*walk)
	if r.Index != nil {
		// Who uses it a second time will a third time.
		r.walk = w
		return w.run(r, p, rand)
	}
	err := w.run(r, p, rand)
	w.mender.Start(nil) // the pool holds no memory of the caller's
	walks.Put(w)
	return err
}

// walks are for programs that are rewritten once. A walk has a key for random
// numbers, which takes longer to make than such a program.
var walks = sync.Pool{New: func() any { return new(walk) }}

// run is Rewrite.
func (w *walk) run(r *Result, p *bpf.Program, rand io.Reader) error {
	n := len(p.Insns)
	if n > math.MaxInt32/upperLen {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, too many to blind", n)}
	}
	if err := p.CheckSizes(); err != nil {
		return err
	}
	if n > 0 && p.Insns[n-1].Op == abi.OpLdImm64 {
		return unchecked(p, n-1) // its second half would be read
	}
	np := &r.Program
	to := result{np.Insns[:cap(np.Insns)], np.Flags[:cap(np.Flags)], slices.Grow(r.Index[:0], n+1+group)[:n+1+group]}
	to.index[0] = 0
	w.jumps = slices.Grow(w.jumps[:0], n/64+1)[:n/64+1]
	w.half = 0
	w.mender.Start(p)
	constants := 0
	mended := 0      // slots
	var tooFar error // then the index is of use all the same
	for start := 0; start < n; start += block {
		end := min(start+block, n)
		if err := w.rewrite(p, rand, &to, start, end); err != nil {
			return err
		}
		constants += w.numHidden
		if done := start + block - behind; done >= mended+mendPart && tooFar == nil {
			known := to.index[:end+1]
			tooFar = w.mender.Add(to.out[:known[end]], known, mended, w.jumps[mended/64:done/64])
			mended = done
		}
	}
	index := to.index[:n+1]
	length := index[n]
	np.Insns, np.Flags, np.Origin, np.Index = to.out[:length], to.flags[:length], p.Origin, index
	r.Index, r.Constants = index, constants
	if p.Index != nil {
		var ok bool
		if r.composed, ok = compose(r.composed, p.Index, index); !ok {
			return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has an index that doesn't fit %d slots", n)}
		}
		np.Index = r.composed
	}
	if tooFar == nil {
		tooFar = w.mender.Add(np.Insns, index, mended, w.jumps[mended/64:(n+63)/64])
	}
	if tooFar != nil {
		return tooFar
	}
	return w.mender.Finish(np, index)
}

// compose says where slots are that first moves to slots which second moves, in the
// memory of list. It reports whether there are such.
func compose(list, first, second []int32) (composed []int32, ok bool) {
	list = slices.Grow(list[:0], len(first))[:len(first)]
	for i, slot := range first {
		if uint(slot) >= uint(len(second)) {
			return list, false
		}
		list[i] = second[slot]
	}
	return list, true
}

// behind is by how many slots mending follows: so far that most jumps lead to
// slots that have their place, and not so far that the caches have lost them. It is
// a multiple of a block.
const behind = 32 * block

// mendPart is how many slots are mended in one go, in long programs: rewriting and
// mending are quicker the less they take turns.
const mendPart = 16 * block

// walk goes over a program block by block. What a slot is can't be foreseen,
// so its loops have no branch that depends on it: they say in bitmaps and lists
// what is to be done about which slots, and other loops go over these.
type walk struct {
	source source
	// jumps has a bit for each slot that may have a distance.
	jumps  []uint64
	mender bpf.Mender
	// half is 1 if the last block ended with the first half of a 64-bit
	// constant to hide.
	half uint32
	lists
	//lint:ignore U1000 of the assembly
	last tail
}

// result is what a walk fills in. Its slices are as long as there is room.
type result struct {
	out   []bpf.Insn
	flags []bpf.Flag
	index []int32
}

// reserve makes room for n slots, and for as many as are likely, of a program of so
// many slots.
func (to *result) reserve(n, slots int) {
	// Programs become less than twice as long, but the last block may not.
	n = max(n, 2*(slots+min(slots, block))+overrun, 2*len(to.out))
	to.out, to.flags = grow(to.out, n), grow(to.flags, n)
}

// grow returns s with its whole capacity, and that is n or more.
func grow[E any](s []E, n int) []E {
	s = slices.Grow(s, max(n-len(s), 0))
	return s[:cap(s)]
}
