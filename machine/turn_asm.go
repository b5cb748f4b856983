//go:build linux && amd64 && !purego && !race

package machine

import (
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how often in a row a goroutine must lock a Turn to become its
// owner. Evicting it costs about as much as that many locked operations (6 µs and
// 6 ns), so at worst all costs twice what plain locks would.
var patience uint32 = 1024

// Try takes the Turn if it is free.
func (t *Turn) Try() bool {
	way := Way(take(t.words()))
	for way == unsettled && !t.Had() {
		runtime.Gosched()
		way = Way(take(t.words()))
	}
	return way == Taken || way == locked && t.settle()
}

// End gives the Turn back, which the caller has.
func (t *Turn) End() { end(t.words()) }

// words is the Turn as assembly gets it.
func (t *Turn) words() *uint64 { return (*uint64)(unsafe.Pointer(t)) }

// settle takes the Turn behind the lock, or unlocks.
func (t *Turn) settle() bool {
	o := t.owner.Load()
	if o != nil {
		if o.g.Load() != 0 {
			o.g.Store(0)
			barrier()
		}
		for o.held.Load() == heldTaking {
			runtime.Gosched()
		}
		if o.held.Load() == heldFully {
			t.holder.Store(0)
			return false
		}
	}
	me := t.holder.Load()
	if t.last != me {
		t.last, t.streak = me, 0
	}
	if t.streak++; t.streak >= patience && owners.Load() {
		o = new(owner)
		o.g.Store(me)
		o.held.Store(heldFully)
		t.owner.Store(o)
		t.holder.Store(0)
		t.streak = 0
	} else {
		t.hold(me)
	}
	return true
}

// hold says that me, who has locked, has the Turn: by a plain store, since nobody
// is harmed who sees it late, and asks again.
func (t *Turn) hold(me uintptr) { *(*uintptr)(unsafe.Pointer(&t.holder)) = me | settled }

// Dash is Try, Enter with R1 and R2 zero, and End, as far as that goes. Code is
// entered only if key is the Frame's, see SetKey.
func (f *Frame) Dash(key uintptr) (r0 uint64, way Way) {
	r0, w := dash((*uint64)(unsafe.Pointer(f)), key)
	switch way = Way(w); way {
	case locked:
		way = takenIf(f.settle())
	case unsettled:
		way = takenIf(f.Try())
	}
	return r0, way
}

func takenIf(ok bool) Way {
	if ok {
		return Taken
	}
	return Refused
}

// Commands of membarrier(2). Package image needs them as well; registering
// another one would take some 15 ms.
const (
	membarrierSyncCore         = 1 << 5 // PRIVATE_EXPEDITED_SYNC_CORE
	membarrierRegisterSyncCore = 1 << 6
)

// barrierCommand is that of barrier. A test changes it.
var barrierCommand uintptr = membarrierSyncCore

// owners says that membarrier is ready, so that goroutines may own Turns.
var owners atomic.Bool

// allowOwners makes membarrier ready if that is possible.
func allowOwners() { owners.Store(membarrier(membarrierRegisterSyncCore) == nil) }

func membarrier(command uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_MEMBARRIER, command, 0, 0); e != 0 {
		return os.NewSyscallError("membarrier", e)
	}
	return nil
}

// barrier returns when all threads have executed a memory barrier.
func barrier() {
	if membarrier(barrierCommand) != nil {
		// Forbidden since it was registered. Stopping the world takes every
		// goroutine out of assembly.
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
	}
}
