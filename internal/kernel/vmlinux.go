package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
)

// BTFKind is a kind of BTF type.
type BTFKind uint8

// Kinds to look for by name.
const (
	BTFStruct  BTFKind = 4
	BTFTypedef BTFKind = 8
	BTFFunc    BTFKind = btfFunc
)

// TypeID returns the number of a type of the running kernel: a BTFFunc for
// Call instructions with Src CallKfunc, a BTFTypedef "btf_trace_…" for
// Spec.AttachTo, a BTFStruct for casts. The error wraps ErrUnavailable where
// the kernel has no BTF.
func TypeID(name string, kind BTFKind) (uint32, error) {
	types, err := kernelTypes()
	if err != nil {
		return 0, err
	}
	id, ok := types[typeName{name, kind}]
	if !ok {
		return 0, fmt.Errorf("kernel: no BTF type %q of kind %d", name, kind)
	}
	return id, nil
}

type typeName struct {
	name string
	kind BTFKind
}

var kernelTypes = sync.OnceValues(func() (map[typeName]uint32, error) {
	b, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	types, err := parseTypes(b)
	if err != nil {
		return nil, fmt.Errorf("kernel: /sys/kernel/btf/vmlinux: %w", err)
	}
	return types, nil
})

var errTypes = errors.New("malformed BTF")

// parseTypes numbers the named structs, typedefs and functions of BTF; the
// first of a name counts.
func parseTypes(b []byte) (map[typeName]uint32, error) {
	if len(b) < btfHeaderLen || binary.LittleEndian.Uint16(b) != btfMagic {
		return nil, errTypes
	}
	word := func(at uint32) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	header := word(4)
	start, size := uint64(header)+uint64(word(8)), uint64(word(12))
	strStart, strSize := uint64(header)+uint64(word(16)), uint64(word(20))
	if start+size > uint64(len(b)) || strStart+strSize > uint64(len(b)) {
		return nil, errTypes
	}
	section, names := b[start:start+size], b[strStart:strStart+strSize]
	types := make(map[typeName]uint32)
	for id := uint32(1); len(section) > 0; id++ {
		if len(section) < 12 {
			return nil, errTypes
		}
		name := binary.LittleEndian.Uint32(section)
		what := binary.LittleEndian.Uint32(section[4:])
		kind, count := BTFKind(what>>24&31), int(what&0xffff)
		more := typeSize(kind, count)
		if more < 0 || len(section) < 12+more || int(name) > len(names) {
			return nil, errTypes
		}
		section = section[12+more:]
		switch kind {
		case BTFStruct, BTFTypedef, BTFFunc:
			s, _, _ := bytes.Cut(names[name:], []byte{0})
			key := typeName{string(s), kind}
			if _, ok := types[key]; !ok {
				types[key] = id
			}
		}
	}
	return types, nil
}

// typeSize is how many bytes follow the 12 that all types have, -1 for an
// unknown kind.
func typeSize(kind BTFKind, count int) int {
	switch kind {
	case 2, 7, 8, 9, 10, 11, 12, 16, 18: // ptr, fwd, typedef, volatile, const, restrict, func, float, type tag
		return 0
	case 1, 14, 17: // int, var, decl tag
		return 4
	case 3: // array
		return 12
	case 6, 13: // enum, func proto
		return 8 * count
	case 4, 5, 15, 19: // struct, union, datasec, enum64
		return 12 * count
	}
	return -1
}
