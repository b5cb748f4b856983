package bpfjit

import (
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

// Translated is one function of a program as a kernel's JIT would get it.
type Translated struct {
	Name     string
	Program  *bpf.Program // its Origin has the slots of the Source
	Function jit.Function
}

// Translate returns the functions of a program in the form in which a kernel
// gives them to its JIT, as far as that can be told without its verifier: each
// by itself, calls by number. A verifier also rewrites accesses to context
// structures and some helper calls, and knows better how much stack is used;
// here it is as deep as direct accesses go, and all of a frame whose address
// is taken.
func (s *Source) Translate() ([]Translated, error) {
	funcs, err := bpf.Functions(s.Program)
	if err != nil {
		return nil, compileError(s.Name, s, err)
	}
	list := make([]Translated, len(funcs))
	for i, f := range funcs {
		p := &bpf.Program{Insns: slices.Clone(s.Program.Insns[f.Start:f.End])}
		for slot := f.Start; slot < f.End; slot++ {
			p.Origin = append(p.Origin, int32(slot))
		}
		for _, call := range f.Calls {
			p.Insns[call.Slot-f.Start].Imm = int32(call.Callee)
		}
		if err := bpf.Check(p, bpf.Translated); err != nil {
			return nil, compileError(s.Name, &Source{Program: p}, err)
		}
		name := s.FuncName(f.Start)
		if name == "" && i == 0 {
			name = s.Name
		}
		list[i] = Translated{name, p, jit.Function{StackDepth: stackDepth(p), Subprogram: i > 0}}
	}
	return list, nil
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
