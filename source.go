package bpfjit

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// Source is a program as its author wrote it, in slots of 8 bytes, before
// anything is checked or compiled. Most callers have no need of it: Compile
// and Load make one on the way. It is for tools that look at programs.
type Source struct {
	Name string
	Type ebpf.ProgramType
	// License is what the object says, or empty.
	License string
	// Program holds the slots. A 64-bit load that refers to a map has the
	// number 0 for it, and the offset into its value.
	Program *bpf.Program
	// Maps lists those loads, in order.
	Maps []MapRef

	funcs map[int]string // names by first slot
	lines lineTable
}

// MapRef is a 64-bit load that stands for a map, or for a place in the value
// of the only element of an array.
type MapRef struct {
	Slot   int    // of the load's first half
	Name   string // of the map in the object; .data, .bss, .rodata… for globals
	Value  bool   // a place in the value, not the map
	Offset uint32 // of the place
}

// String returns the name of the map, quoted as Go does if it can't be printed,
// with the offset into its value.
func (r MapRef) String() string {
	name := printable.Name(r.Name)
	if r.Value {
		return fmt.Sprintf("%s+%d", name, r.Offset)
	}
	return name
}

// Convert takes instructions of cilium/ebpf apart. The error is a
// *CompileError: for instructions that have no place in a slot, names that
// lead nowhere, and what only a kernel could resolve.
func Convert(insns asm.Instructions) (*Source, error) {
	src, err := convert(insns)
	if err != nil {
		return nil, compileError(insns.Name(), nil, err)
	}
	src.Name = insns.Name()
	return src, nil
}

// ReadSpec reads an object that clang has made, on any platform. In addition
// to what [ebpf.LoadCollectionSpecFromReader] does, it refuses an object
// without programs and says why it has none.
func ReadSpec(r io.ReaderAt) (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(r)
	if err != nil {
		return nil, readError{err}
	}
	if len(spec.Programs) == 0 {
		return nil, errNoPrograms
	}
	return spec, nil
}

// readError is what cilium/ebpf says of an object, which may hold names of it.
type readError struct{ err error }

func (e readError) Error() string { return printable.Text(e.err.Error()) }
func (e readError) Unwrap() error { return e.err }

var errNoPrograms = errors.New("the object has no programs: functions in .text are none; " +
	`give them a section, as __attribute__((section("xdp"))) does`)

// SourceOf returns the program called name of an object. An empty name means
// the only program. Fields that the compiler marked for relocation to a
// running kernel's types (CO-RE) stay where the object's own types have them.
func SourceOf(spec *ebpf.CollectionSpec, name string) (*Source, error) {
	p, err := find(spec, name)
	if err != nil {
		return nil, err
	}
	src, err := convert(p.Instructions)
	if err != nil {
		return nil, compileError(p.Name, nil, err)
	}
	src.Name, src.Type, src.License = p.Name, p.Type, p.License
	return src, nil
}

// find returns a program of an object that this machine can run.
func find(spec *ebpf.CollectionSpec, name string) (*ebpf.ProgramSpec, error) {
	if len(spec.Programs) == 0 {
		return nil, errNoPrograms
	}
	if spec.ByteOrder != nil && spec.ByteOrder.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("the object is for big-endian machines: %w", ErrUnsupported)
	}
	if p := spec.Programs[name]; p != nil {
		return p, nil
	}
	names := slices.Sorted(maps.Keys(spec.Programs))
	if name == "" && len(names) == 1 {
		return spec.Programs[names[0]], nil
	}
	for i := range names {
		names[i] = printable.Name(names[i])
	}
	list := strings.Join(names, ", ")
	if name == "" {
		return nil, fmt.Errorf("the object has several programs, name one: %s", list)
	}
	return nil, fmt.Errorf("the object has no program %q, but %s", name, list)
}

// FuncName returns the name of the function that begins at a slot, quoted as Go
// does if it can't be printed, or "".
func (s *Source) FuncName(slot int) string { return s.funcs[slot] }

// Line returns the line that a slot was compiled from; the zero Line if it
// isn't known.
func (s *Source) Line(slot int) Line { return s.lines.at(slot) }

// secondHalf tells whether a slot is the second half of a 64-bit load.
func secondHalf(insns []bpf.Insn, slot int) bool {
	// No first half has the opcode of a second one, so halves pair up from
	// any slot that isn't one.
	return slot > 0 && insns[slot].Op == 0 && insns[slot-1].Op == abi.OpLdImm64
}
