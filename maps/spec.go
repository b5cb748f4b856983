package maps

import (
	"errors"
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// Type is a kind of map, by the number that bpf(2) gives it.
type Type uint32

// The kinds of map that New makes.
const (
	Hash        Type = 1
	Array       Type = 2
	PerCPUHash  Type = 5
	PerCPUArray Type = 6
)

// typeNames are all kinds of map, by bpf(2), so that an error can name them.
var typeNames = [...]string{
	1: "hash", 2: "array", 3: "prog_array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
	7: "stack_trace", 8: "cgroup_array", 9: "lru_hash", 10: "lru_percpu_hash", 11: "lpm_trie",
	12: "array_of_maps", 13: "hash_of_maps", 14: "devmap", 15: "sockmap", 16: "cpumap", 17: "xskmap",
	18: "sockhash", 19: "cgroup_storage", 20: "reuseport_sockarray", 21: "percpu_cgroup_storage",
	22: "queue", 23: "stack", 24: "sk_storage", 25: "devmap_hash", 26: "struct_ops", 27: "ringbuf",
	28: "inode_storage", 29: "task_storage", 30: "bloom_filter", 31: "user_ringbuf", 32: "cgrp_storage",
	33: "arena",
}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("map type %d", uint32(t))
}

// Flags of a map that matter here (bpf(2), BPF_MAP_CREATE).
const (
	FlagNoPrealloc    = 1 << 0 // hash: a hint, without effect here
	FlagNUMANode      = 1 << 2 // a hint, without effect
	FlagReadOnly      = 1 << 3 // for file descriptors, without effect
	FlagWriteOnly     = 1 << 4 // for file descriptors, without effect
	FlagZeroSeed      = 1 << 6 // hash: without effect
	FlagReadOnlyProg  = 1 << 7 // programs must not update it
	FlagWriteOnlyProg = 1 << 8
	FlagMmapable      = 1 << 10 // array: all are
	FlagPreserveElems = 1 << 11
	FlagInnerMap      = 1 << 12 // array: without effect
)

// Flags of an update.
const (
	UpdateAny     = 0 // make the entry or replace it
	UpdateNoExist = 1 // make it; EEXIST if it is there
	UpdateExist   = 2 // replace it; ENOENT if it isn't there
)

// Spec says what a map is to be.
type Spec struct {
	Name       string // for errors and listings
	Type       Type
	KeySize    uint32 // bytes
	ValueSize  uint32 // bytes
	MaxEntries uint32
	Flags      uint32
}

// SpecError says what is wrong with a Spec. It wraps abi.EINVAL or abi.E2BIG,
// which is what bpf(2) would say.
type SpecError struct {
	Spec   Spec
	Field  string // of Spec
	Reason string
	Err    error
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("map %q (%v): %s %s", e.Spec.Name, e.Spec.Type, e.Field, e.Reason)
}

// Unwrap returns the error number.
func (e *SpecError) Unwrap() error { return e.Err }

func (s *Spec) invalid(field, format string, args ...any) error {
	return &SpecError{*s, field, fmt.Sprintf(format, args...), abi.EINVAL}
}

func (s *Spec) tooBig(field, format string, args ...any) error {
	return &SpecError{*s, field, fmt.Sprintf(format, args...), abi.E2BIG}
}

// UnsupportedError names a kind of map that New doesn't make. It wraps
// errors.ErrUnsupported.
type UnsupportedError struct {
	Name string // of the map
	Type Type
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("map %q: maps of type %v are not supported", e.Name, e.Type)
}

// Unwrap returns errors.ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return errors.ErrUnsupported }
