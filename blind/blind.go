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
	whole     [1]bpf.Func // the only function
	walk      *walk       // its own, if it is used again
}

// MoveFunctions returns the functions of Program, if those of the old program
// were funcs. They are good until r is used again.
func (r *Result) MoveFunctions(funcs []bpf.Func) []bpf.Func {
	if len(funcs) == 1 && funcs[0].Start == 0 && len(funcs[0].Calls)+len(funcs[0].Refs) == 0 {
		r.whole[0].End = len(r.Program.Insns)
		return r.whole[:]
	}
	return r.moved.Move(funcs, r.Index)
}

// Rewrite sets r to p with its constants hidden. p is a source program as
// lower.Lower left it, with all its functions, or one function of a
// translated program; it is not changed. A source program must have passed
// bpf.Check. A translated one that wouldn't pass is refused, or becomes one that
// wouldn't either, which jit.Compile sees. Time goes with the number of slots.
// The memory that r has is used again, so p must not be r's Program.
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
	w := r.walk
	if w == nil {
		return r.lend(p, rand)
	}
	fetch(p)
	if p == &r.Program {
		panic("BUG: a program is blinded in its own memory")
	}
	n := len(p.Insns)
	if n > math.MaxInt32/upperLen {
		return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has %d slots, too many to blind", n)}
	}
	if err := p.CheckSizes(); err != nil {
		return err
	}
	if n+1+group > cap(r.Index) || n/64+2 > len(w.jumps) {
		r.Index, w.jumps = grow(r.Index, n+1+group), grow(w.jumps, n/64+2)
	}
	r.Index = r.Index[:n+1+group]
	r.Index[0] = 0
	w.constants, w.half, w.mended = 0, 0, 0
	w.mender.Start(p)
	for start := 0; start < n; start += block {
		end := min(start+block, n)
		if err := w.rewrite(r, p, rand, start, end); err != nil {
			return err
		}
		if done := start + block - behind; done-w.mended >= mendPart {
			w.follow(r, done, end)
		}
	}
	r.Index, r.Constants = r.Index[:n+1], w.constants
	np, length := &r.Program, r.Index[n]
	np.Insns, np.Flags, np.Origin, np.Index = np.Insns[:length], np.Flags[:length], p.Origin, r.Index
	if p.Index != nil {
		if !r.compose(p.Index, r.Index) {
			return &bpf.Error{Slot: -1, Reason: fmt.Sprintf("has an index that doesn't fit %d slots", n)}
		}
		np.Index = r.composed
	}
	if w.mended > n {
		return w.tooFar
	}
	if err := w.mender.Add(np.Insns, r.Index, w.mended, w.jumps[uint(w.mended)/64:(n+63)/64]); err != nil {
		return err
	}
	return w.mender.Finish(np, r.Index)
}

// lend does what Rewrite does with a walk of the pool. Who uses a Result again will
// do so once more, and may keep it.
func (r *Result) lend(p *bpf.Program, rand io.Reader) error {
	again := r.Index != nil
	w := walks.Get().(*walk)
	r.walk = w
	err := r.Rewrite(p, rand)
	if !again {
		r.walk = nil
		w.mender.Start(nil) // the pool holds no memory of the caller's
		w.tooFar = nil
		walks.Put(w)
	}
	return err
}

// walks are for programs that are rewritten once. A walk has a key for random
// numbers, which takes longer to make than such a program.
var walks = sync.Pool{New: func() any { return new(walk) }}

// behind is by how many slots mending follows: so far that most jumps lead to
// slots that have their place, and not so far that the caches have lost them. It is
// a multiple of a block.
const behind = 32 * block

// mendPart is how many slots are mended in one go, in long programs: rewriting and
// mending are quicker the less they take turns.
const mendPart = 16 * block

// follow mends the jumps up to a slot, in long programs. Slots up to known have their
// place. An error waits until all have: the index is of use all the same.
func (w *walk) follow(r *Result, done, known int) {
	index := r.Index[:known+1]
	err := w.mender.Add(r.Program.Insns[:index[known]], index, w.mended, w.jumps[w.mended/64:done/64])
	w.mended = done
	if err != nil {
		w.tooFar, w.mended = err, math.MaxInt
	}
}

// walk goes over a program block by block. What a slot is can't be foreseen,
// so its loops have no branch that depends on it: they say in bitmaps and lists
// what is to be done about which slots, and other loops go over these.
//
// Its lists don't begin where a page does: slots, flags and indices of short programs do,
// and processors take loads for loads of what was just stored a multiple of pages away.
type walk struct {
	source source
	lists
	// half is 1 if the last block ended with the first half of a 64-bit
	// constant to hide.
	half uint32
	//lint:ignore U1000 of the assembly
	asm       assemblys
	constants int
	// jumps has a bit for each slot that may have a distance. There may be more of it.
	jumps  []uint64
	mender bpf.Mender
	// mended is how many slots are mended, or more than there are: then tooFar says
	// why not.
	mended int
	tooFar error
}

// reserve makes room for n new slots, and for as many as are likely, of a program of
// so many slots. Until all are there, only capacities count.
func (r *Result) reserve(n, slots int) {
	// Programs become less than twice as long, but the last block may not.
	np := &r.Program
	n = max(n, 2*(slots+min(slots, block))+overrun, 2*cap(np.Insns))
	np.Insns, np.Flags = grow(np.Insns, n), grow(np.Flags, n)
}

// grow returns all that s has room for, and that is n or more. In line, it would be in
// the way of programs that have room.
//
//go:noinline
func grow[E any](s []E, n int) []E {
	s = s[:cap(s)]
	s = slices.Grow(s, max(n-len(s), 0))
	return s[:cap(s)]
}
