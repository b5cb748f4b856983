package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
)

// Hand-made BTF, just enough for bpf(2) to accept function and line records:
//
//	[1] INT int    [2] INT u64    [3] FUNC_PROTO int(u64)
//	[4…] one FUNC each, and a DECL_TAG that names the exception callback
//
// The layout is that of the header <linux/btf.h>, which user space shares
// with the kernel; all fields are little-endian.
const (
	btfMagic      = 0xeb9f
	btfHeaderLen  = 24
	btfInt        = 1
	btfFunc       = 12
	btfFuncProto  = 13
	btfDeclTag    = 17
	btfFirstFunc  = 4
	btfProtoOfAll = 3
)

// Records of BPF_PROG_LOAD.
const (
	funcRecord = 8  // slot, type ID
	lineRecord = 16 // slot, file name, line text, line<<10 | column
)

// debugInfo is what Spec.Debug adds to a load.
type debugInfo struct {
	btf   []byte
	funcs []byte // funcRecord bytes each
	lines []byte // lineRecord bytes each
}

// btfWriter builds the type and the string section.
type btfWriter struct {
	types, strings []byte
	n              uint32
}

func (w *btfWriter) str(s string) uint32 {
	off := uint32(len(w.strings))
	w.strings = append(append(w.strings, s...), 0)
	return off
}

// add appends a type and returns its ID.
func (w *btfWriter) add(name string, kind, vlen, sizeOrType uint32, rest ...uint32) uint32 {
	var off uint32
	if name != "" {
		off = w.str(name)
	}
	for _, v := range append([]uint32{off, kind<<24 | vlen, sizeOrType}, rest...) {
		w.types = binary.LittleEndian.AppendUint32(w.types, v)
	}
	w.n++
	return w.n
}

func (w *btfWriter) bytes() []byte {
	b := binary.LittleEndian.AppendUint16(nil, btfMagic)
	b = append(b, 1, 0)
	for _, v := range []int{btfHeaderLen, 0, len(w.types), len(w.types), len(w.strings)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return append(append(b, w.types...), w.strings...)
}

// debug makes the BTF of a program: its functions and a line a slot.
func debug(s *Spec) (*debugInfo, error) {
	w := &btfWriter{strings: []byte{0}}
	w.add("int", btfInt, 0, 4, 1<<24|32) // signed, 32 bits
	w.add("u64", btfInt, 0, 8, 64)
	w.add("", btfFuncProto, 1, 1, w.str("arg"), 2)
	d := &debugInfo{}
	for _, slot := range debugStarts(s) {
		var linkage uint32 // static
		if slot == s.ExceptionCallback && slot != 0 || slices.Contains(s.Globals, slot) {
			linkage = 1
		}
		id := w.add(FuncName(slot), btfFunc, linkage, btfProtoOfAll)
		d.funcs = binary.LittleEndian.AppendUint32(d.funcs, uint32(slot))
		d.funcs = binary.LittleEndian.AppendUint32(d.funcs, id)
	}
	if cb := s.ExceptionCallback; cb != 0 {
		w.add("exception_callback:"+FuncName(cb), btfDeclTag, 0, btfFirstFunc, 0xffffffff)
	}
	file, line := w.str("program"), w.str("slot")
	for slot := 0; slot < len(s.Insns); slot++ {
		for _, v := range []uint32{uint32(slot), file, line, uint32(slot+1) << 10} {
			d.lines = binary.LittleEndian.AppendUint32(d.lines, v)
		}
		if s.Insns[slot].Op == abi.OpLdImm64 {
			slot++ // the second half can't have a line
		}
	}
	d.btf = w.bytes()
	if len(s.Insns) >= 1<<22 {
		return nil, fmt.Errorf("kernel: %d slots are too many for line numbers of 22 bits", len(s.Insns))
	}
	return d, nil
}

// debugStarts returns the first slots of the functions of a program, in the
// order of their types.
func debugStarts(s *Spec) []int {
	starts := sourceFunctions(s.Insns)
	if cb := s.ExceptionCallback; cb != 0 && !slices.Contains(starts, cb) {
		starts = append(starts, cb)
		slices.Sort(starts)
	}
	return starts
}

// sourceFunctions returns the first slots of a program's functions in order:
// 0, and what calls and function constants refer to.
func sourceFunctions(insns []abi.Insn) []int {
	starts := []int{0}
	for i := 0; i < len(insns); i++ {
		in := insns[i]
		switch {
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
			starts = append(starts, i+1+int(in.Imm))
		case in.Op == abi.OpLdImm64:
			if in.Src() == abi.Imm64Func {
				starts = append(starts, i+1+int(in.Imm))
			}
			i++
		}
	}
	slices.Sort(starts)
	return slices.Compact(starts)
}
