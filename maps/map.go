package maps

import (
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// Map is a map of any kind. Keys and values have exactly the sizes of the
// Spec. All methods may be called from several goroutines at once, while
// programs run; like in the kernel, nobody but the program's author keeps
// those who use one value from each other.
type Map interface {
	abi.Map
	// Spec returns what the map was made from.
	Spec() Spec
	// Value returns the memory of a key's value, or nil: what programs see,
	// as it changes. It is valid until the Space is closed.
	Value(key []byte) []byte
	// All returns the entries at the time of the call in an order that is
	// the same in every run. The values are the memory, as with Value.
	All() iter.Seq2[[]byte, []byte]
	// Used returns the entries that say something, like All: all of a hash map, and
	// of an array those whose value isn't all zero. How long that takes depends on
	// how much was written and not on how much room there is, where the system can
	// tell what was; and elsewhere not on the number of entries, but on their size.
	Used() iter.Seq2[[]byte, []byte]
	// Direct returns the guest address of byte off of the value of a map
	// that is an array with one entry, for 64-bit constants that point into
	// it: global variables.
	Direct(off uint32) (addr uint64, err error)
}

// kinds are the kinds of map. A kind checks its Spec and takes memory for all
// its values from the Space.
var kinds = map[Type]func(*cage.Space, Spec) (Map, error){
	Array:       newArray,
	PerCPUArray: newArray,
	Hash:        newHash,
	PerCPUHash:  newHash,
}

// New makes an empty map with its values in a Space. The error is a
// *SpecError, an *UnsupportedError, or that of Space.Alloc.
func New(space *cage.Space, spec Spec) (Map, error) {
	kind, ok := kinds[spec.Type]
	if !ok {
		return nil, &UnsupportedError{spec.Name, spec.Type}
	}
	return kind(space, spec)
}

// Put is Update for the host: with an error, and with the sizes checked. The
// error is an abi.Errno.
func Put(m Map, key, value []byte, flags uint64) error {
	if len(key) != m.KeySize() || len(value) != m.ValueSize() {
		return fmt.Errorf("key of %d bytes, value of %d, in map %q of %d and %d: %w",
			len(key), len(value), m.Spec().Name, m.KeySize(), m.ValueSize(), abi.EINVAL)
	}
	if n := m.Update(key, value, flags); n != 0 {
		return abi.Errno(-n)
	}
	return nil
}

// Set is the maps of a Space with their handles. All methods may be called
// from several goroutines at once.
type Set struct {
	space *cage.Space
	mu    sync.Mutex
	list  atomic.Pointer[list]
}

// list is what a Set has, by the index of handles. It only grows: a newer list
// may share memory with an older one, which doesn't look behind its end.
type list struct {
	maps   []Map
	arrays []abi.Array
}

// NewSet returns a Set without maps.
func NewSet(space *cage.Space) *Set {
	s := &Set{space: space}
	s.list.Store(new(list))
	return s
}

// New makes a map and returns it with its handle. The errors are those of the
// function New, and one that wraps abi.E2BIG when there are no more handles.
func (s *Set) New(spec Spec) (m Map, handle uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.list.Load()
	n := len(old.maps)
	if n == abi.MaxHandles {
		return nil, 0, fmt.Errorf("map %q: there are %d maps already: %w", spec.Name, n, abi.E2BIG)
	}
	if m, err = New(s.space, spec); err != nil {
		return nil, 0, err
	}
	var native abi.Array
	if a, ok := m.(*array); ok {
		native = a.native()
	}
	s.list.Store(&list{append(old.maps, m), append(old.arrays, native)})
	return m, abi.MapHandle(n), nil
}

// Map returns the map of a handle, or nil. It is meant for abi.Env.
func (s *Set) Map(handle uint64) abi.Map {
	if i, ok := abi.MapIndex(handle); ok {
		if maps := s.list.Load().maps; i < len(maps) {
			return maps[i]
		}
	}
	return nil
}

// Arrays returns what native code may know of the maps, by the index of their
// handles. It must not be changed.
func (s *Set) Arrays() []abi.Array { return s.list.Load().arrays }

// All returns the maps by their handles, in the order in which they were made.
func (s *Set) All() iter.Seq2[uint64, Map] {
	return func(yield func(uint64, Map) bool) {
		for i, m := range s.list.Load().maps {
			if !yield(abi.MapHandle(i), m) {
				return
			}
		}
	}
}
