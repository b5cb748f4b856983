package machine

import (
	"sync/atomic"
	"time"
)

// A Turn is a lock that is tried and not waited for: who has it may use an
// instance. A goroutine that takes it over and over does so without a locked
// operation, of which each costs as much as entering code. The zero value is
// free; a Turn must not be copied.
//
// For a start a Turn is a plain lock, the word holder. A goroutine that has
// locked it many times in a row becomes its owner, and has a word of its own from
// then on, held:
//
//	the owner                        another goroutine
//
//	if owner.g isn't me: lock        lock holder, or be refused
//	held = taking                    owner.g = nobody
//	if owner.g isn't me:             membarrier
//	    held = not, lock             wait while held is taking
//	held = fully                     if held is fully: unlock, be refused
//	...                              holder is settled
//	held = not
//
// On the left a load follows a store to another place, which processors swap;
// other locks have an expensive instruction there. Here the right side pays:
// membarrier(2) returns when every thread of the process has been at a point
// where all that comes before it in the program is done, and nothing of what
// comes behind. If the store of taking comes before that point, the right side
// sees it, and waits for what becomes of it. If it comes behind, so does the load,
// and the left side will see that it was evicted. So at most one of them has the
// Turn, and one of them has it.
//
// A thread may stop between any two steps for as long as it likes, and then write
// to held, long after the eviction. So every owner gets a word of its own. The
// runtime may give the structure of a goroutine that has ended to a new one; that
// one is the owner then, and the old one isn't between two steps.
//
// Who has locked on the right doesn't know yet whether that is of any use. Until
// then another goroutine that can't lock isn't refused, but asks again: the owner
// may have given the Turn back meanwhile, and then nobody has it.
//
// The race detector doesn't see what assembly does. With it, as without
// assembly, a Turn stays a plain lock.
type Turn struct {
	owner  atomic.Pointer[owner] // the last one, maybe evicted; or nil
	holder atomic.Uintptr        // the goroutine that has locked, and settled; or 0
	//lint:ignore U1000 where there are owners
	last uintptr // the one that did so last
	//lint:ignore U1000 where there are owners
	streak uint32 // how often in a row it did
}

// owner is a goroutine that owns, or has owned, a Turn.
type owner struct {
	//lint:ignore U1000 where there are owners
	g    atomic.Uintptr // 0 when it is evicted
	held atomic.Uint32  // whether it has the Turn
}

// settled is a bit of Turn.holder: who has locked has the Turn. It is free in the
// address of a goroutine.
const settled = 1

// The values of owner.held.
const (
	heldNot = iota
	heldTaking
	heldFully
)

// Wait takes the Turn as soon as it is free. A run can be long, so it looks less
// and less often, down to once in a millisecond.
func (t *Turn) Wait() {
	for pause := time.Microsecond; !t.Try(); pause = min(2*pause, time.Millisecond) {
		time.Sleep(pause)
	}
}

// Had reports whether somebody has the Turn.
func (t *Turn) Had() bool {
	o := t.owner.Load()
	return t.holder.Load()&settled != 0 || o != nil && o.held.Load() == heldFully
}

// Way is how far a Dash got.
type Way uint8

const (
	Refused   Way = iota // somebody else has the Turn
	locked               // the Turn must be settled
	unsettled            // somebody else has locked, but may not have it
	Taken                // the caller has the Turn; nothing has run
	Left                 // and code has left before its end: Finish must follow
	Ended                // and code has ended well
	Over                 // code has ended well, and the Turn is given back
)
