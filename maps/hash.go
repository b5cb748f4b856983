package maps

import (
	"iter"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// hash is BPF_MAP_TYPE_HASH and its per-cpu sister. Memory for all entries is
// there from the beginning, so that a value never moves while its entry
// exists. As in the kernel, the memory of a deleted entry is that of a later
// one sooner or later, whoever still has a pointer to it; unlike there, a
// replaced value stays where it was.
type hash struct {
	values
	spec Spec

	mu    sync.RWMutex
	index map[string]uint32 // place of the value
	keys  []string          // by place, as far as places were ever used
	free  []uint32          // places below len(keys) that no key has
}

const (
	// hashFlags are those that a hash map may have.
	hashFlags = FlagNoPrealloc | FlagNUMANode | FlagReadOnly | FlagWriteOnly | FlagZeroSeed | FlagReadOnlyProg | FlagWriteOnlyProg
	// maxKeySize is what fits a program's stack.
	maxKeySize = abi.FrameBytes
)

func newHash(space *cage.Space, spec Spec) (Map, error) {
	switch {
	case spec.KeySize == 0:
		return nil, spec.invalid("KeySize", "is 0")
	case spec.KeySize > maxKeySize:
		return nil, spec.tooBig("KeySize", "is %d, more than %d", spec.KeySize, maxKeySize)
	case spec.Flags&^hashFlags != 0:
		return nil, spec.invalid("Flags", "are %#x, of which %#x are not a hash map's", spec.Flags, spec.Flags&^hashFlags)
	}
	v, err := newValues(space, &spec)
	if err != nil {
		return nil, err
	}
	return &hash{values: v, spec: spec, index: map[string]uint32{}}, nil
}

func (h *hash) Spec() Spec     { return h.spec }
func (h *hash) KeySize() int   { return int(h.spec.KeySize) }
func (h *hash) ValueSize() int { return int(h.spec.ValueSize) }

// place returns where the value of a key is.
func (h *hash) place(key []byte) (uint32, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	i, ok := h.index[string(key)]
	return i, ok
}

func (h *hash) Lookup(key []byte) (addr uint64, ok bool) {
	i, ok := h.place(key)
	if !ok {
		return 0, false
	}
	return h.addr(i), true
}

func (h *hash) Value(key []byte) []byte {
	if i, ok := h.place(key); ok {
		return h.bytes(i)
	}
	return nil
}

func (h *hash) Update(key, value []byte, flags uint64) int64 {
	if flags > UpdateExist {
		return -int64(abi.EINVAL)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	i, ok := h.index[string(key)]
	var name string
	if !ok {
		// The key may lie in memory that programs write meanwhile: from here on it
		// is what it was when it was copied.
		name = string(key)
		i, ok = h.index[name]
	}
	switch {
	case ok && flags == UpdateNoExist:
		return -int64(abi.EEXIST)
	case !ok && flags == UpdateExist:
		return -int64(abi.ENOENT)
	case ok:
		copy(h.bytes(i), value)
		return 0
	}
	switch last := len(h.free) - 1; {
	case last >= 0:
		i, h.free = h.free[last], h.free[:last]
		h.keys[i] = name
	case len(h.keys) < int(h.spec.MaxEntries):
		i = uint32(len(h.keys))
		h.keys = append(h.keys, name)
	default:
		return -int64(abi.E2BIG)
	}
	copy(h.bytes(i), value)
	h.index[name] = i
	return 0
}

func (h *hash) Delete(key []byte) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, ok := h.index[string(key)]
	if !ok {
		return -int64(abi.ENOENT)
	}
	delete(h.index, h.keys[i])
	h.keys[i] = ""
	h.free = append(h.free, i)
	return 0
}

// All goes by the places of the values.
func (h *hash) All() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		h.mu.RLock()
		keys := append([]string(nil), h.keys...)
		h.mu.RUnlock()
		for i, key := range keys {
			if key != "" && !yield([]byte(key), h.bytes(uint32(i))) {
				return
			}
		}
	}
}

func (h *hash) Used() iter.Seq2[[]byte, []byte] { return h.All() }

func (h *hash) Direct(uint32) (uint64, error) {
	return 0, h.spec.invalid("Type", "is %v: only an array has addresses that are constants", h.spec.Type)
}
