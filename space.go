package bpfjit

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/maps"
)

// Space is memory that programs share: their maps and globals, 2 GiB at most.
// A map has the same address in all programs of a Space. The zero value is
// empty and ready for use; a Space must not be copied. Its methods may be
// called from several goroutines at once.
type Space struct {
	mem cage.Space

	once sync.Once
	set  *maps.Set

	residents [2]residents // by cage.Kind
}

// NewSpace returns an empty Space.
func NewSpace() *Space { return new(Space) }

// maps returns the maps of the space.
func (s *Space) maps() *maps.Set {
	s.once.Do(func() { s.set = maps.NewSet(&s.mem) })
	return s.set
}

// Close gives the memory back, at once or when the last instance is closed
// that uses it. Programs of the Space can't be run any more, but in instances
// that they have already. Closing again does nothing.
func (s *Space) Close() error {
	err := s.mem.Close()
	for k := range s.residents {
		err = errors.Join(err, s.residents[k].close())
	}
	return err
}

// residents are instances that stay with a Space, for Program.Run: as many as
// there were runs at once, up to maxResidents. Further runs get theirs from the
// pool of the memory.
//
// A goroutine looks first where its stack's address leads to, and there finds
// what it found last time. So each of several that run at once soon has a
// resident for itself, which is then its Turn's owner.
type residents struct {
	near [places]atomic.Pointer[Instance]

	mu  sync.Mutex
	all []*Instance
}

const (
	maxResidents = 16
	places       = 16
)

// near returns the resident that a goroutine should try first, or nil.
func (s *Space) near(kind cage.Kind, place cage.Place) *Instance {
	return s.residents[kind].near[place%places].Load()
}

// all returns the residents.
func (s *Space) all(kind cage.Kind) []*Instance {
	r := &s.residents[kind]
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// take takes a resident, nil if all are busy and no more are to be made.
func (s *Space) take(kind cage.Kind, place cage.Place) (*Instance, error) {
	if in := s.near(kind, place); in != nil && in.frame.Try() {
		return in, nil
	}
	r := &s.residents[kind]
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.mem.Closed() {
		return nil, cage.ErrClosed
	}
	near := &r.near[place%places]
	for _, in := range r.all {
		if in.frame.Try() {
			near.Store(in)
			return in, nil
		}
	}
	if len(r.all) == maxResidents {
		return nil, nil
	}
	m, err := s.mem.NewInstance(kind)
	if err != nil {
		return nil, err
	}
	in := newInstance(m, resident)
	in.frame.Try() // nobody else knows it
	r.all = append(r.all, in)
	near.Store(in)
	return in, nil
}

// close closes the residents, each as soon as no run is under way in it.
func (r *residents) close() (err error) {
	// They stay in the list: a program that is closed meanwhile must find those
	// that it runs in.
	r.mu.Lock()
	all := slices.Clone(r.all)
	for k := range r.near {
		r.near[k].Store(nil)
	}
	r.mu.Unlock()
	for _, in := range all {
		if in.frame.Try() {
			err = errors.Join(err, in.discard())
			in.frame.End()
			continue
		}
		go func() {
			in.frame.Wait()
			in.discard()
			in.frame.End()
		}()
	}
	return err
}
