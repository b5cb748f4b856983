package bpfjit

import (
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/printable"
	"github.com/bpfjit/bpfjit/jit"
)

// Translated is one function of a program as a kernel's JIT would get it.
type Translated struct {
	Name     string       // see Source.FuncName
	Program  *bpf.Program // its Origin has the slots of the Source
	Function jit.Function
}

// Translate returns the functions of a program in the form in which a kernel
// gives them to its JIT, as far as that can be told without its verifier: each
// by itself, calls by number. A verifier also rewrites accesses to context
// structures and some helper calls, and knows better how much stack is used;
// here it is as deep as direct accesses go, and all of a frame whose address
// is taken. Every tail call counts as one whose index the verifier doesn't know.
func (s *Source) Translate() ([]Translated, error) {
	funcs, err := bpf.Functions(s.Program)
	if err != nil {
		return nil, compileError(s.Name, s, err)
	}
	list := make([]Translated, len(funcs))
	tails := tailCallReachable(s.Program.Insns, funcs)
	for i, f := range funcs {
		p := &bpf.Program{Insns: slices.Clone(s.Program.Insns[f.Start:f.End])}
		for slot := f.Start; slot < f.End; slot++ {
			p.Origin = append(p.Origin, int32(slot))
		}
		for _, call := range f.Calls {
			// As in a kernel, Off holds the distance now; anything but 0 says
			// that Imm doesn't.
			in := &p.Insns[call.Slot-f.Start]
			in.Off, in.Imm = int16(in.Imm), int32(call.Callee)
			if in.Off == 0 {
				in.Off = -1
			}
		}
		for slot := range p.Insns {
			if in := &p.Insns[slot]; isTailCall(*in) {
				*in = bpf.Insn{Op: abi.OpTailCall}
			}
		}
		if err := bpf.Check(p, bpf.Translated); err != nil {
			return nil, compileError(s.Name, &Source{Program: p}, err)
		}
		name := s.FuncName(f.Start)
		if name == "" && i == 0 {
			name = printable.Name(s.Name)
		}
		list[i] = Translated{name, p, jit.Function{
			StackDepth: stackDepth(p), Subprogram: i > 0, TailCallReachable: tails[i],
		}}
	}
	return list, nil
}

// isTailCall tells whether an instruction of a source program calls the helper
// bpf_tail_call.
func isTailCall(in bpf.Insn) bool {
	return in.Op == abi.OpCall && in.Src() == abi.CallHelper && in.Imm == int32(asm.FnTailCall)
}

// tailCallReachable tells for each function whether it makes a tail call or
// calls a function, directly or not, that does.
func tailCallReachable(insns []bpf.Insn, funcs []bpf.Func) []bool {
	callers := make([][]int, len(funcs))
	reach := make([]bool, len(funcs))
	var mark func(i int)
	mark = func(i int) {
		if reach[i] {
			return
		}
		reach[i] = true
		for _, caller := range callers[i] {
			mark(caller)
		}
	}
	for i, f := range funcs {
		for _, call := range f.Calls {
			callers[call.Callee] = append(callers[call.Callee], i)
		}
	}
	for i, f := range funcs {
		if slices.ContainsFunc(insns[f.Start:f.End], isTailCall) {
			mark(i)
		}
	}
	return reach
}

// stackDepth returns how many bytes of its frame a function may use, a
// multiple of 8.
func stackDepth(p *bpf.Program) int {
	depth := 0
	for _, in := range p.Insns {
		switch class := in.Op & abi.ClassMask; {
		case class == abi.ClassLDX && in.Src() == abi.R10,
			(class == abi.ClassST || class == abi.ClassSTX) && in.Dst() == abi.R10:
			depth = max(depth, -int(in.Off))
		case (class == abi.ClassALU || class == abi.ClassALU64) && in.Op&abi.SourceX != 0 && in.Src() == abi.R10:
			return abi.FrameBytes
		}
	}
	return (depth + 7) &^ 7
}
