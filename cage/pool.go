package cage

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// pool keeps idle instances of one kind: one in each of a few hot places, which
// cost an atomic exchange to take from or put to, and the rest in a list. A
// goroutine looks first at the place that its stack's address leads to, so that
// goroutines on several processors hardly ever meet. (A sync.Pool takes three
// times as long, and forgets.)
//
// Who takes an instance out of its place or the list has it.
//
// Places hold an instance's number rather than a pointer, since the exchange
// of a pointer is a call into the runtime.
type pool struct {
	hot [16]place

	// all is the instances by number. It is replaced with mu held.
	all atomic.Pointer[[]*Instance]

	mu   sync.Mutex
	list []*Instance // idle
}

type place struct {
	number atomic.Uint32 // 0: empty
	_      [124]byte     // two cache lines, which processors fetch in pairs
}

// here returns the place that the calling goroutine looks at first.
func (p *pool) here() *place {
	var local byte
	at := uint64(uintptr(unsafe.Pointer(&local)) >> 11) // the smallest stack has 2 KiB
	return &p.hot[at*0x9e3779b97f4a7c15>>60]
}

// take returns an idle instance, or nil.
func (p *pool) take() *Instance {
	if n := p.here().number.Swap(0); n != 0 {
		return (*p.all.Load())[n-1]
	}
	return p.search()
}

// search is take behind a miss.
func (p *pool) search() *Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.list) - 1; last >= 0 {
		i := p.list[last]
		p.list[last] = nil
		p.list = p.list[:last]
		return i
	}
	for k := range p.hot {
		if n := p.hot[k].number.Swap(0); n != 0 {
			return (*p.all.Load())[n-1]
		}
	}
	return nil
}

// give makes an instance idle.
func (p *pool) give(i *Instance) {
	if !p.here().number.CompareAndSwap(0, i.number) {
		p.append(i)
	}
}

// append is give behind a miss.
func (p *pool) append(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, i)
}

// add gives an instance its number.
func (p *pool) add(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*Instance
	if old := p.all.Load(); old != nil {
		all = *old
	}
	all = append(all, i) // where readers of the old slice don't look
	p.all.Store(&all)
	i.number = uint32(len(all))
}

// remove forgets an instance that is in use. Its number is not given again.
func (p *pool) remove(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	(*p.all.Load())[i.number-1] = nil
}

// Get returns a clean instance whose caller's memory holds a copy of mem, as
// LoadMem does it. It reuses one that was Put back if it can; that takes
// neither a system call nor an allocation unless the number of pages differs.
// The errors are those of NewInstance and LoadMem.
func (s *Space) Get(kind Kind, mem []byte) (*Instance, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	i := s.pools[kind].take()
	if i == nil {
		fresh, err := s.NewInstance(kind)
		if err != nil {
			return nil, err
		}
		s.pools[kind].add(fresh)
		i = fresh
	}
	i.state = pooled
	if len(mem) == 0 && i.memSize == 0 {
		return i, nil
	}
	if err := i.LoadMem(mem); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Put resets an instance that came from Get of the same Space and lets others
// have it. Its caller must not use it afterwards. Large memory is given back
// to the system.
func (s *Space) Put(i *Instance, w Writes) {
	if i.state != pooled || i.space != s {
		panic("BUG: cage: Put of an instance that isn't from Get of this Space, or was Put already")
	}
	i.state = idle
	i.Reset(w)
	if i.memDirty > keep {
		i.zero(0, i.memDirty)
		i.memDirty = 0
	}
	s.pools[i.kind].give(i)
	// Close sets closed before it drains the pools: either it finds this
	// instance, or we see closed.
	if s.closed.Load() {
		s.drain()
	}
}

// drain closes all idle instances.
func (s *Space) drain() (errs []error) {
	for k := range s.pools {
		for {
			i := s.pools[k].search()
			if i == nil {
				break
			}
			i.state = pooled
			errs = append(errs, i.Close())
		}
	}
	return errs
}
