package jit

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
)

// Code is a compiled function, or for the cage a compiled program.
type Code struct {
	Bytes []byte
	// Ends is the offset in Bytes behind the code of each slot.
	Ends []uint32
	// Funcs are the functions, in the order of their slots.
	Funcs  []Func
	Faults []Fault
	Relocs []Reloc
	// Watch is called, unless it is nil, when a stage of compiling a function is
	// over; to the last Join belongs what is done once for a program. It is for those
	// who measure.
	Watch func(Stage)

	own *compiler // from its second use on
}

// reset empties a Code for a program of n slots and a number of functions.
func (c *Code) reset(n, funcs int) {
	if n+encoder.EndsSlack > cap(c.Ends) || funcs > cap(c.Funcs) {
		// Few functions are some whole cache lines, for the reason of passesRoom.
		c.Ends, c.Funcs = slices.Grow(c.Ends[:0], n+encoder.EndsSlack), slices.Grow(c.Funcs[:0], max(funcs, 4))
	}
	// One by one: that stores no more than the lengths.
	c.Bytes = c.Bytes[:0]
	c.Ends = c.Ends[:n]
	c.Funcs = c.Funcs[:funcs]
	c.Faults = c.Faults[:0]
	c.Relocs = c.Relocs[:0]
}

// Stage is a part of compiling a function.
type Stage uint8

const (
	Draft  Stage = iota // the bytes of each slot, and the first pass
	Passes              // over the jumps, all but the first
	Join                // the bytes where they belong
)

// over says that a stage is.
func (c *Code) over(s Stage) {
	if c.Watch != nil {
		c.Watch(s)
	}
}

// Func is where a function is in a Code.
type Func struct {
	Start, End int // slots
	// Entry is the offset of the first byte; Body that of the first slot.
	Entry, Body uint32
	// Cold is the offset of the code behind the last slot; Limit is the
	// function's end.
	Cold, Limit uint32
	// Passes are the lengths that the passes arrived at, in bytes. The last
	// one wrote the code.
	Passes []int
	// Padding is how many of the bytes are nops before jumps, which keep late
	// passes from shrinking.
	Padding int
}

// Fault is an instruction that may fault: it then has no effect but that a
// register becomes zero.
type Fault struct {
	Slot   int
	Offset uint32 // of the x86 instruction
	Len    uint8  // its length in bytes
	Clear  int8   // BPF register that becomes 0, or -1
	Arena  int8   // BPF register with the arena address, or -1
	Off    int16  // for arena accesses: the instruction's offset
}

// Reloc is a field that depends on where the code is, or on addresses outside.
type Reloc struct {
	Slot   int    // that of the return thunk is the first EXIT
	Offset uint32 // of the field
	Kind   RelocKind
}

// RelocKind says what a field holds. Those of calls are the calls' source registers.
type RelocKind uint8

const (
	// RelHelper: 32 bits, distance from behind the field to the base of
	// helper calls plus the instruction's Imm.
	RelHelper RelocKind = abi.CallHelper
	// RelLocal: 32 bits, distance to a function of this program: Imm.
	RelLocal RelocKind = abi.CallLocal
	// RelKfunc: what RelHelper is, for a kernel function.
	RelKfunc RelocKind = abi.CallKfunc
	// RelReturnThunk: 32 bits, distance to the return thunk.
	RelReturnThunk RelocKind = iota
	// RelIndirectThunk: 32 bits, distance to the thunk for jumps through rcx.
	RelIndirectThunk
	// RelFunc: 32 bits sign-extended, address of a function of this program.
	RelFunc
	// RelMap: 64 bits, address of a map, a map's value or a variable.
	RelMap
)

// Slot returns the slot that the instruction at an offset of Bytes belongs to,
// or -1: a prologue or a hole.
func (c *Code) Slot(offset uint32) int {
	i := sort.Search(len(c.Funcs), func(i int) bool { return c.Funcs[i].Limit > offset })
	if i == len(c.Funcs) || offset < c.Funcs[i].Body {
		return -1
	}
	f := &c.Funcs[i]
	if offset >= f.Cold {
		// It ends in a jump back behind its CHARGE.
		end := f.Cold + ((offset-f.Cold)/coldSize+1)*coldSize
		offset = end + binary.LittleEndian.Uint32(c.Bytes[end-4:]) - 1
	}
	return f.Start + sort.Search(f.End-f.Start, func(k int) bool { return c.Ends[f.Start+k] > offset })
}

// errorAt makes an error about a slot.
func errorAt(p *bpf.Program, slot int, field, reason string, err error) error {
	return &bpf.Error{Slot: slot, Insn: p.Insns[slot], Field: field, Reason: reason, Err: err}
}

// Link fills in what depends on addresses: the code is to lie at base, and
// resolve gives the address that a relocation refers to. It changes c.Bytes.
func (c *Code) Link(base uint64, resolve func(Reloc) (uint64, error)) error {
	for _, r := range c.Relocs {
		target, err := resolve(r)
		if err != nil {
			return err
		}
		field := c.Bytes[r.Offset:]
		switch r.Kind {
		case RelMap:
			binary.LittleEndian.PutUint64(field, target)
			continue
		case RelFunc:
		default:
			target -= base + uint64(r.Offset) + 4
		}
		if int64(target) != int64(int32(target)) {
			return fmt.Errorf("jit: slot %d: target of the relocation is out of reach: %#x", r.Slot, target)
		}
		binary.LittleEndian.PutUint32(field, uint32(target))
	}
	return nil
}
