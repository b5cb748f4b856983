package cage

import (
	"sync"
	"unsafe"
)

// pool keeps idle instances of one kind.
type pool struct {
	mu   sync.Mutex
	idle []*Instance
}

// take returns an idle instance, or nil.
func (p *pool) take() *Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	i := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return i
}

// give makes an instance idle.
func (p *pool) give(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, i)
}

// Place is a number of 16 bits that tells goroutines apart, most of the time.
type Place uint16

// Here returns the Place of the calling goroutine. It changes when the stack
// does.
func Here() Place {
	var local byte
	at := uint64(uintptr(unsafe.Pointer(&local)) >> 11) // the smallest stack has 2 KiB
	return Place(at * 0x9e3779b97f4a7c15 >> 48)
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
	i.Idle(w)
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
			i := s.pools[k].take()
			if i == nil {
				break
			}
			i.state = pooled
			errs = append(errs, i.Close())
		}
	}
	return errs
}
