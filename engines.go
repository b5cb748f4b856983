package bpfjit

import (
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/interp"
)

// An engine executes a compiled program in the memory of an instance.
type engine interface {
	// kind is the kind of memory that it needs.
	kind() cage.Kind
	// run executes the program. check ends it by an error; nil never does.
	run(in *Instance, r1, r2 uint64, check func() error) result
	// close gives back what the engine holds. No run is under way.
	close() error
}

// result is an abi.Result whose Slot is one of the source, and what raised a
// fault.
type result struct {
	abi.Result
	signal int
}

// reference is the engine that interprets.
type reference struct {
	prog   *interp.Prog
	helper func(uint32) HelperFunc
	budget int64
}

func newReference(p *bpf.Program, s *settings) (*reference, error) {
	prog, err := interp.Prepare(p)
	if err != nil {
		return nil, err
	}
	return &reference{prog, s.helpers.Lookup, s.Budget}, nil
}

func (*reference) kind() cage.Kind { return cage.Plain }

func (e *reference) run(in *Instance, r1, r2 uint64, check func() error) result {
	return result{Result: e.prog.Run(in.mem, &interp.Config{
		R1: r1, R2: r2, Budget: e.budget, Helper: e.helper, Env: &in.env, Check: check,
	})}
}

func (*reference) close() error { return nil }
