package blind

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

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
	n := len(p.Insns)
	if n > math.MaxInt32/upperLen {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, too many to blind", n)}
	}
	w := walks.Get().(*walk)
	err := w.run(r, p, rand)
	// The pool holds no memory of the caller's.
	w.source.reader = nil
	w.result = result{}
	w.mender.Start(nil)
	walks.Put(w)
	return err
}

// run is Rewrite of a program that isn't too long.
func (w *walk) run(r *Result, p *bpf.Program, rand io.Reader) error {
	n := len(p.Insns)
	if err := p.CheckSizes(); err != nil {
		return err
	}
	if err := w.source.start(rand); err != nil {
		return err
	}
	np := &r.Program
	w.out, w.flags = np.Insns[:cap(np.Insns)], np.Flags[:cap(np.Flags)]
	w.index = slices.Grow(r.Index[:0], n+1+group)[:n+1+group]
	w.jumps = slices.Grow(w.jumps[:0], n/64+block/64)[:n/64+block/64]
	w.constants, w.half = 0, 0
	w.index[0] = 0
	w.mender.Start(p)
	mended := 0      // slots
	var tooFar error // then the index is of use all the same
	for start := 0; start < n; start += block {
		end := min(start+block, n)
		w.reserve(int(w.index[start])+(end-start)*upperLen+group, n)
		if err := w.rewrite(p, start, end); err != nil {
			return err
		}
		if done := start + block - behind; done >= mended+mendPart && tooFar == nil {
			tooFar = w.mend(mended, done, end)
			mended = done
		}
	}
	if w.half != 0 {
		return unchecked(p, n-1)
	}
	length := w.index[n]
	np.Insns, np.Flags, np.Origin = w.out[:length], w.flags[:length], p.Origin
	r.Index, r.Constants = w.index[:n+1], w.constants
	np.Index = r.Index
	if p.Index != nil {
		var ok bool
		if r.composed, ok = compose(r.composed, p.Index, r.Index); !ok {
			return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has an index that doesn't fit %d slots", n)}
		}
		np.Index = r.composed
	}
	if tooFar == nil {
		tooFar = w.mend(mended, n, n)
	}
	if tooFar != nil {
		return tooFar
	}
	return w.mender.Finish(np, r.Index)
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

// mend mends the jumps from the slot start up to end. Slots up to known have their
// place.
func (w *walk) mend(start, end, known int) error {
	return w.mender.Add(w.out[:w.index[known]], w.index[:known+1], start, w.jumps[start/64:(end+63)/64])
}

// walk goes over a program block by block. What a slot is can't be foreseen,
// so its loops have no branch that depends on it: they say in bitmaps and lists
// what is to be done about which slots, and other loops go over these.
type walk struct {
	source source
	result
	constants int
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

// result is what the walk fills in. Its slices are as long as there is room.
type result struct {
	out   []bpf.Insn
	flags []bpf.Flag
	index []int32
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// reserve sees to it that there is room for n slots. If there isn't, it makes
// room for as many as are likely, of a program of so many slots.
func (w *walk) reserve(n, slots int) {
	if n > min(len(w.out), len(w.flags)) {
		// Programs become less than twice as long, but the last block may not.
		n = max(n, 2*(slots+min(slots, block))+group, 2*len(w.out))
		w.out, w.flags = grow(w.out, n), grow(w.flags, n)
	}
}

// grow returns s with its whole capacity, and that is n or more.
func grow[E any](s []E, n int) []E {
	s = slices.Grow(s, max(n-len(s), 0))
	return s[:cap(s)]
}
