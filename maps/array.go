package maps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// array is BPF_MAP_TYPE_ARRAY and its per-cpu sister: values in a row, each
// rounded up to 8 bytes, by an index of 32 bits. All entries exist from the
// beginning and can't be deleted. Global variables are an array with one
// entry.
type array struct {
	values
	spec  Spec
	space *cage.Space
}

// arrayFlags are those that an array may have.
const arrayFlags = FlagNUMANode | FlagReadOnly | FlagWriteOnly | FlagReadOnlyProg | FlagWriteOnlyProg |
	FlagMmapable | FlagPreserveElems | FlagInnerMap

// indexSize is the size of an array's key.
const indexSize = 4

func newArray(space *cage.Space, spec Spec) (Map, error) {
	switch {
	case spec.KeySize != indexSize:
		return nil, spec.invalid("KeySize", "is %d, must be %d", spec.KeySize, indexSize)
	case spec.Flags&^arrayFlags != 0:
		return nil, spec.invalid("Flags", "are %#x, of which %#x are not an array's", spec.Flags, spec.Flags&^arrayFlags)
	}
	v, err := newValues(space, &spec)
	if err != nil {
		return nil, err
	}
	return &array{v, spec, space}, nil
}

func (a *array) Spec() Spec     { return a.spec }
func (a *array) KeySize() int   { return indexSize }
func (a *array) ValueSize() int { return int(a.spec.ValueSize) }

// index returns the index that a key is, if there is such an entry.
func (a *array) index(key []byte) (uint32, bool) {
	i := binary.LittleEndian.Uint32(key)
	return i, i < a.spec.MaxEntries
}

func (a *array) Lookup(key []byte) (addr uint64, ok bool) {
	i, ok := a.index(key)
	if !ok {
		return 0, false
	}
	return a.addr(i), true
}

// native describes the array to native code, which does what Lookup does.
func (a *array) native() abi.Array {
	return abi.Array{Limit: a.spec.MaxEntries, Base: uint32(a.base), Step: uint32(a.step)}
}

func (a *array) Value(key []byte) []byte {
	if i, ok := a.index(key); ok {
		return a.bytes(i)
	}
	return nil
}

func (a *array) Update(key, value []byte, flags uint64) int64 {
	i, ok := a.index(key)
	switch {
	case flags > UpdateExist:
		return -int64(abi.EINVAL)
	case !ok:
		return -int64(abi.E2BIG)
	case flags == UpdateNoExist:
		return -int64(abi.EEXIST)
	}
	copy(a.bytes(i), value)
	return 0
}

func (a *array) Delete(key []byte) int64 { return -int64(abi.EINVAL) }

func (a *array) All() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for i := range a.spec.MaxEntries {
			if !a.yield(i, yield) {
				return
			}
		}
	}
}

func (a *array) yield(i uint32, yield func([]byte, []byte) bool) bool {
	return yield(binary.LittleEndian.AppendUint32(nil, i), a.bytes(i))
}

func (a *array) Used() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		next := uint64(0) // offset of the first value that wasn't looked at
		for from, to := range a.space.Written(a.base, uint64(len(a.host))) {
			for at := max(next, from-a.base); at < to-a.base; at = next {
				n := nonZero(a.host[at : to-a.base])
				if n < 0 {
					break
				}
				i := (at + uint64(n)) / a.step
				next = (i + 1) * a.step
				inside := at+uint64(n)-i*a.step < a.size // and not between two values
				if inside && !a.yield(uint32(i), yield) {
					return
				}
			}
		}
	}
}

// zeros is what memory is compared with.
var zeros [512]byte

// nonZero returns the index of the first byte that isn't 0, or -1.
func nonZero(b []byte) int {
	for at := 0; at < len(b); at += len(zeros) {
		block := b[at:min(at+len(zeros), len(b))]
		if bytes.Equal(block, zeros[:len(block)]) {
			continue
		}
		for i, c := range block {
			if c != 0 {
				return at + i
			}
		}
	}
	return -1
}

func (a *array) Direct(off uint32) (uint64, error) {
	switch {
	case a.spec.Type != Array:
		return 0, a.spec.invalid("Type", "is %v: only an array has addresses that are constants", a.spec.Type)
	case a.spec.MaxEntries != 1:
		return 0, a.spec.invalid("MaxEntries", "is %d: a constant can point to the value of a map with one entry only", a.spec.MaxEntries)
	case off >= a.spec.ValueSize:
		return 0, a.spec.invalid("ValueSize", "is %d: a constant can't point to byte %d of it", a.spec.ValueSize, off)
	}
	return a.addr(0) + uint64(off), nil
}

// values are the values of a map, side by side in guest memory.
type values struct {
	base uint64 // guest address
	host []byte // the same memory
	size uint64 // of a value
	step uint64 // from one value to the next
}

// newValues takes memory for all entries of a map, with what all kinds of maps
// check.
func newValues(space *cage.Space, spec *Spec) (v values, err error) {
	switch {
	case spec.MaxEntries == 0:
		return v, spec.invalid("MaxEntries", "is 0")
	case spec.ValueSize == 0:
		return v, spec.invalid("ValueSize", "is 0")
	case spec.ValueSize > math.MaxInt32:
		return v, spec.tooBig("ValueSize", "is %d, more than %d", spec.ValueSize, math.MaxInt32)
	}
	v.size = uint64(spec.ValueSize)
	v.step = (v.size + 7) &^ 7
	n := v.step * uint64(spec.MaxEntries)
	if v.base, err = space.Alloc(n); errors.Is(err, cage.ErrFull) {
		return v, &SpecError{*spec, "MaxEntries", "needs more guest memory than there is", err}
	} else if err != nil {
		return v, fmt.Errorf("map %q: %w", spec.Name, err)
	}
	v.host, err = space.Bytes(v.base, n)
	return v, err
}

func (v *values) addr(i uint32) uint64 { return v.base + v.step*uint64(i) }

func (v *values) bytes(i uint32) []byte {
	o := v.step * uint64(i)
	return v.host[o : o+v.size : o+v.size]
}
