package bpfjit

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// settings are Options with their defaults filled in.
type settings struct {
	Options
	helpers *helpers.Table
	foreign map[uint32]bool // numbers of those that came with the options
	print   func(string)
}

// standardHelpers are those of every program that brings none, which is most:
// tables take 2 kB. Nothing writes to them.
var standardHelpers = sync.OnceValue(helpers.Standard)

func newSettings(opts *Options) settings {
	var s settings
	if opts != nil {
		s.Options = *opts
	}
	if s.Budget == 0 {
		s.Budget = DefaultBudget
	}
	s.helpers = standardHelpers()
	if len(s.Helpers) > 0 {
		s.helpers, s.foreign = helpers.Standard(), make(map[uint32]bool)
		for number, f := range s.Helpers {
			s.helpers.Set(uint32(number), f)
			s.foreign[uint32(number)] = true
		}
	}
	if w := s.Trace; w != nil {
		var mu sync.Mutex // programs run in several goroutines
		s.print = func(text string) {
			mu.Lock()
			defer mu.Unlock()
			io.WriteString(w, text+"\n")
		}
	}
	s.Helpers = nil
	return s
}

// programs counts the programs that were compiled.
var programs atomic.Uint64

// compile takes a program all the way: it checks it and makes an engine for
// it. maps are those that the program may refer to, all of one space; without
// a space the program gets one of its own.
func compile(src *Source, s settings, space *Space, maps map[string]*Map) (*Program, error) {
	s.name(src)
	fail := func(err error) (*Program, error) { return nil, compileError(s.Name, src, err) }

	resolved, used, err := resolve(src, maps)
	if err != nil {
		return fail(err)
	}
	survey := new(bpf.Survey)
	if err := survey.Check(resolved, bpf.Source); err != nil {
		return fail(err)
	}
	if err := checkHelpers(resolved, &s); err != nil {
		return fail(err)
	}
	p := &Program{
		src: src, settings: s, maps: used, space: space, writes: writes(resolved, &s),
		key: uintptr(programs.Add(1)), gate: newGate(),
	}
	if space == nil {
		p.space, p.ownSpace = NewSpace(), true
	}
	if s.Labels {
		p.labels = newLabels(s.Name)
	}
	p.info.Insns = len(src.Program.Insns)
	if err := p.choose(survey); err != nil {
		return fail(err)
	}
	p.kind = p.engine.kind()
	return p, nil
}

// choose makes the engine that the settings ask for, of a program that has
// passed the check.
func (p *Program) choose(survey *bpf.Survey) error {
	if p.settings.Engine != EngineInterpreter {
		var e *native
		err := p.space.mem.Windows()
		if err == nil {
			e, err = newNative(survey, &p.settings, &p.info)
		}
		if err == nil {
			p.engine, p.info.Engine = e, EngineJIT
			return e.tell(p.src, &p.settings, &p.info)
		}
		if p.settings.Engine == EngineJIT {
			return err
		}
		p.info.Reason = err
	}
	e, err := newReference(survey.Program(), &p.settings)
	p.engine, p.info.Engine = e, EngineInterpreter
	return err
}

// name gives the program the name and the type of its source where the
// options have none.
func (s *settings) name(src *Source) {
	if s.Name == "" {
		s.Name = src.Name
	}
	if s.Name == "" {
		s.Name = "program"
	}
	s.Name = printable.Name(s.Name)
	if s.Type == ebpf.UnspecifiedProgram {
		s.Type = src.Type
	}
}

// resolve returns the program with its references to maps made constants: the
// handle of a map, the guest address of a value. used are the maps referred
// to.
func resolve(src *Source, maps map[string]*Map) (p *bpf.Program, used map[string]*Map, err error) {
	if len(src.Maps) == 0 {
		return src.Program, nil, nil
	}
	p = &bpf.Program{Insns: slices.Clone(src.Program.Insns)}
	used = make(map[string]*Map)
	for _, ref := range src.Maps {
		fail := func(format string, args ...any) error {
			return &convertError{slot: ref.Slot, field: "imm", err: fmt.Errorf(format, args...)}
		}
		m := maps[ref.Name]
		if m == nil {
			return nil, nil, fail("there is no map %q: %w", ref.Name, ErrUnsupported)
		}
		if m.err != nil {
			return nil, nil, fail("%w", m.err)
		}
		used[ref.Name] = m
		address := m.handle
		if ref.Value {
			if address, err = m.m.Direct(ref.Offset); err != nil {
				return nil, nil, fail("%w", err)
			}
		}
		lo, hi := &p.Insns[ref.Slot], &p.Insns[ref.Slot+1]
		lo.Regs = abi.Registers(lo.Dst(), abi.Imm64Value)
		lo.Imm, hi.Imm = int32(uint32(address)), int32(uint32(address>>32))
	}
	return p, used, nil
}

// checkHelpers refuses calls of helpers that the program won't have. What
// callx calls is known only when it runs.
func checkHelpers(p *bpf.Program, s *settings) error {
	for slot, in := range p.Insns {
		if in.Op != abi.OpCall || in.Src() != abi.CallHelper || s.helpers.Lookup(uint32(in.Imm)) != nil {
			continue
		}
		name := fmt.Sprint(asm.BuiltinFunc(in.Imm))
		return &convertError{slot: slot, field: "imm", err: fmt.Errorf("there is no helper function %d (%s): %w", in.Imm, name, ErrUnsupported)}
	}
	return nil
}

// writes finds out what a program can write of its private memory, so that no
// more is cleared between its runs. A guest address is a number that a program
// may make up, so a store through any register but R10 may go anywhere. Of the
// helper functions only those of the caller write to private memory.
func writes(p *bpf.Program, s *settings) cage.Writes {
	depth, calls := 0, false
	for _, in := range p.Insns {
		switch class := in.Op & abi.ClassMask; {
		case class == abi.ClassST, class == abi.ClassSTX:
			if in.Dst() != abi.R10 {
				return cage.WritesAll
			}
			depth = max(depth, -int(in.Off))
		case in.Op == abi.OpMayGoto:
			depth = max(depth, -abi.MayGotoOffset)
		case in.Op == abi.OpCallx, in.Op == abi.OpCall && in.Src() == abi.CallHelper && s.foreign[uint32(in.Imm)]:
			return cage.WritesAll
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
			calls = true
		}
	}
	if calls && depth > 0 {
		depth = abi.StackSize
	}
	return cage.Writes{Stack: depth}
}
