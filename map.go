package bpfjit

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/printable"
	"github.com/bpfjit/bpfjit/maps"
)

// Map is a map of a program or a Collection. It lives as long as its Space.
// Its methods may be called from several goroutines at once, and while
// programs run that use it; who needs a value of several bytes to be read in
// one piece must see to that himself, as in the kernel.
type Map struct {
	name   string
	space  *cage.Space // its memory
	spec   *ebpf.MapSpec
	m      maps.Map
	handle uint64
	err    error // why there is no m
}

// newMap makes a map in a space, and fills it.
func newMap(space *Space, name string, spec *ebpf.MapSpec, contents []ebpf.MapKV) *Map {
	m := &Map{name: name, spec: spec.Copy(), space: &space.mem}
	if err := m.hold(); err != nil {
		m.err = err
		return m
	}
	defer m.space.Release()
	m.m, m.handle, m.err = space.maps().New(maps.Spec{
		Name: name, Type: maps.Type(spec.Type), KeySize: spec.KeySize, ValueSize: spec.ValueSize,
		MaxEntries: spec.MaxEntries, Flags: spec.Flags,
	})
	if errors.Is(m.err, cage.ErrClosed) {
		m.err = fmt.Errorf("map %q: its Space: %w", name, ErrClosed)
	}
	for i := 0; i < len(contents) && m.err == nil; i++ {
		key, err1 := encode(contents[i].Key)
		value, err2 := encode(contents[i].Value)
		if err := errors.Join(err1, err2); err != nil {
			m.err = fmt.Errorf("map %q: contents: %w", name, err)
			break
		}
		if err := maps.Put(m.m, key, value, maps.UpdateAny); err != nil {
			m.err = fmt.Errorf("map %q: contents: %w", name, err)
		}
	}
	return m
}

// encode returns the bytes of a key or a value that cilium/ebpf has as any
// type: bytes, what marshals itself, or numbers of fixed size, little-endian.
func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("nothing")
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	case encoding.BinaryMarshaler:
		return v.MarshalBinary()
	}
	return binary.Append(nil, binary.LittleEndian, v)
}

// hold keeps the map's memory until it is released, or reports that its Space
// is closed.
func (m *Map) hold() error {
	if m.space.Hold() != nil {
		return fmt.Errorf("map %q: its Space: %w", m.name, ErrClosed)
	}
	return nil
}

// Name returns the name that the map has in its object.
func (m *Map) Name() string { return m.name }

// Spec returns what the map was made from. It must not be changed.
func (m *Map) Spec() *ebpf.MapSpec { return m.spec }

// ReadOnly reports whether programs are not meant to change the map: constants.
// Helpers refuse to; stores to a value's address are not stopped.
func (m *Map) ReadOnly() bool { return m.spec.Flags&maps.FlagReadOnlyProg != 0 }

// Lookup returns a copy of the value of key. The error is
// [ebpf.ErrKeyNotExist], ErrClosed, or about the size of the key.
func (m *Map) Lookup(key []byte) ([]byte, error) {
	if err := m.fits(key); err != nil {
		return nil, err
	}
	if err := m.hold(); err != nil {
		return nil, err
	}
	defer m.space.Release()
	value := m.m.Value(key)
	if value == nil {
		return nil, fmt.Errorf("map %q: %w", m.name, ebpf.ErrKeyNotExist)
	}
	return bytes.Clone(value), nil
}

// Update changes the value of key, or makes an entry for it. The error is
// [ebpf.ErrKeyNotExist], [ebpf.ErrKeyExist], ErrClosed, or an abi.Errno.
func (m *Map) Update(key, value []byte, flags ebpf.MapUpdateFlags) error {
	if err := m.fits(key); err != nil {
		return err
	}
	if len(value) != m.m.ValueSize() {
		return fmt.Errorf("map %q: value of %d bytes, want %d: %w", m.name, len(value), m.m.ValueSize(), abi.EINVAL)
	}
	if err := m.hold(); err != nil {
		return err
	}
	defer m.space.Release()
	return m.errno(m.m.Update(key, value, uint64(flags)))
}

// Delete removes the entry of key. The error is [ebpf.ErrKeyNotExist], ErrClosed,
// or an abi.Errno: entries of an array can't be removed.
func (m *Map) Delete(key []byte) error {
	if err := m.fits(key); err != nil {
		return err
	}
	if err := m.hold(); err != nil {
		return err
	}
	defer m.space.Release()
	return m.errno(m.m.Delete(key))
}

// All yields the entries with copies of their values, in the same order in
// every run. There are none when the Space is closed.
func (m *Map) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		if m.hold() != nil {
			return
		}
		defer m.space.Release()
		for key, value := range m.m.All() {
			if !yield(key, bytes.Clone(value)) {
				return
			}
		}
	}
}

// fits checks the size of a key.
func (m *Map) fits(key []byte) error {
	if len(key) != m.m.KeySize() {
		return fmt.Errorf("map %q: key of %d bytes, want %d: %w", m.name, len(key), m.m.KeySize(), abi.EINVAL)
	}
	return nil
}

// errno translates what a map returns to programs.
func (m *Map) errno(n int64) error {
	var err error
	switch e := abi.Errno(-n); e {
	case 0:
		return nil
	case abi.ENOENT:
		err = ebpf.ErrKeyNotExist
	case abi.EEXIST:
		err = ebpf.ErrKeyExist
	default:
		err = e
	}
	return fmt.Errorf("map %q: %w", m.name, err)
}

// Text yields the entries as a person would write them, by the types that the
// object has for key and value: members by name, enums by word, hex where
// there are no types, and names quoted that can't be printed. Of an array it leaves out what is all zero, without looking at
// each element; of globals it yields each variable, by its name. Of long values
// there is the beginning, and an ellipsis.
func (m *Map) Text() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		if m.hold() != nil {
			return
		}
		defer m.space.Release()
		if section, ok := m.spec.Value.(*btf.Datasec); ok {
			for _, value := range m.m.All() { // the only one
				variables(section, value, yield)
				return
			}
		}
		for key, value := range m.m.Used() {
			if !yield(formatValue(m.spec.Key, key), formatValue(m.spec.Value, value)) {
				return
			}
		}
	}
}

// variables yields the variables of a section of data.
func variables(section *btf.Datasec, data []byte, yield func(key, value string) bool) {
	for _, v := range section.Vars {
		end := uint64(v.Offset) + uint64(v.Size)
		variable, ok := v.Type.(*btf.Var)
		if !ok || end > uint64(len(data)) {
			continue
		}
		if !yield(printable.Name(variable.Name), formatValue(variable.Type, data[v.Offset:end])) {
			return
		}
	}
}
