package bpfjit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/printable"
	"github.com/bpfjit/bpfjit/machine"
)

// Program is a program that can be run. Its methods may be called from
// several goroutines at once.
type Program struct {
	src      *Source
	settings settings
	maps     map[string]*Map // those that it refers to
	space    *Space
	ownSpace bool
	engine   engine
	kind     cage.Kind // of the memory that the engine needs
	info     Info
	writes   cage.Writes
	labels   *labels // nil: none

	key    uintptr // what a Dash enters the machine code with: unique
	closed atomic.Bool
	gate   *gate // counts the runs in instances out of the Space's pool

	mu        sync.Mutex
	instances map[*Instance]struct{} // those of NewInstance
}

// Compile makes a program of instructions. References among them are
// resolved; one to a map can't be, for that takes an object: see Load. The
// error is a *CompileError.
func Compile(insns asm.Instructions, opts *Options) (*Program, error) {
	src, err := Convert(insns)
	if err != nil {
		return nil, renamed(err, opts)
	}
	return CompileSource(src, opts)
}

// CompileBytes makes a program of code as it is in an object: slots of 8
// bytes, little-endian (RFC 9669, section 3). The error is a *CompileError.
func CompileBytes(code []byte, opts *Options) (*Program, error) {
	insns, err := bpf.Decode(code)
	if err != nil {
		return nil, renamed(compileError("", nil, err), opts)
	}
	return CompileSource(&Source{Program: &bpf.Program{Insns: insns}}, opts)
}

// CompileSource makes a program of a Source that refers to no maps. It doesn't
// change it. The error is a *CompileError.
func CompileSource(src *Source, opts *Options) (*Program, error) {
	s := newSettings(opts)
	return compile(src, s, s.Space, nil)
}

// renamed puts the name of the options into a CompileError that was made
// before they were looked at.
func renamed(err error, opts *Options) error {
	if e, ok := err.(*CompileError); ok && opts != nil && opts.Name != "" {
		e.Program = printable.Name(opts.Name)
	}
	return err
}

// Name returns the name that errors and listings use: quoted as Go does if it
// can't be printed.
func (p *Program) Name() string { return p.settings.Name }

// Type returns the type of program that RunPacket goes by.
func (p *Program) Type() ebpf.ProgramType { return p.settings.Type }

// Source returns the program as its author wrote it. It must not be changed.
func (p *Program) Source() *Source { return p.src }

// Map returns the map called name that the program refers to, or nil. Globals
// are the only elements of maps called .data, .bss, .rodata and the like.
func (p *Program) Map(name string) *Map { return p.maps[name] }

// Run executes the program with R1 pointing to a copy of mem and R2 holding
// its length, or both 0 if mem is empty, and returns R0. What the program
// writes there comes back in mem, also when the run ends with an error. At
// most abi.MemMax bytes are possible; more is an error that wraps [ErrRange]. A run
// that ends early gives a *RunError.
func (p *Program) Run(mem []byte) (r0 uint64, err error) {
	place := cage.Here()
	if len(mem) == 0 {
		if in := p.space.near(p.kind, place); in != nil {
			r0, way := in.frame.Dash(p.key)
			if way == machine.Over {
				return r0, nil
			} else if way != machine.Refused {
				return in.follow(p, r0, way)
			}
		}
	}
	in, err := p.borrow(place, mem)
	if err != nil {
		return 0, err
	}
	return in.run(mem)
}

// RunContext is Run, ended early when ctx is done: then the error wraps
// ctx.Err().
func (p *Program) RunContext(ctx context.Context, mem []byte) (r0 uint64, err error) {
	in, err := p.borrow(cage.Here(), mem)
	if err != nil {
		return 0, err
	}
	defer in.end()
	return in.runMem(ctx, mem)
}

// RunStruct executes the program with R1 pointing to a copy of a context
// structure, such as struct xdp_md, and R2 = 0. What the program writes there
// comes back in data, also when the run ends with an error. At most
// abi.CtxSize bytes are possible; more is an error that wraps [ErrRange].
func (p *Program) RunStruct(data []byte) (r0 uint64, err error) {
	return p.RunStructContext(context.Background(), data)
}

// RunStructContext is RunStruct, ended early when ctx is done: then the error
// wraps ctx.Err().
func (p *Program) RunStructContext(ctx context.Context, data []byte) (r0 uint64, err error) {
	in, err := p.borrow(cage.Here(), nil)
	if err != nil {
		return 0, err
	}
	defer in.end()
	return in.runStruct(ctx, data)
}

// RunPacket executes the program on a packet: R1 points to the context
// structure of its type, see Options.Type. It returns R0 and the packet as the
// program left it, in memory of its own; also when the run ends with an error. It
// wraps [ErrUnsupported] if programs of the type have no packets, and [ErrRange] if
// the packet has more than abi.MemMax bytes.
func (p *Program) RunPacket(pkt []byte) (r0 uint64, out []byte, err error) {
	return p.RunPacketContext(context.Background(), pkt)
}

// RunPacketContext is RunPacket, ended early when ctx is done: then the error
// wraps ctx.Err().
func (p *Program) RunPacketContext(ctx context.Context, pkt []byte) (r0 uint64, out []byte, err error) {
	in, err := p.borrow(cage.Here(), pkt)
	if err != nil {
		return 0, nil, err
	}
	defer in.end()
	r0, view, err := in.runPacket(ctx, pkt)
	return r0, append([]byte(nil), view...), err
}

// borrow returns an instance for a run whose memory holds a copy of mem. The end
// of the instance gives it back.
func (p *Program) borrow(place cage.Place, mem []byte) (*Instance, error) {
	in, err := p.space.take(p.kind, place)
	if err != nil {
		return nil, p.memoryError(err)
	}
	if in == nil {
		if in, err = p.lend(); err != nil {
			return nil, err
		}
	}
	if err := in.settle(p, mem); err != nil {
		return nil, err
	}
	return in, nil
}

// lend returns an instance out of the Space's pool, and lets a run in.
func (p *Program) lend() (*Instance, error) {
	if !p.gate.enter() {
		return nil, p.closedError()
	}
	m, err := p.space.mem.Get(p.kind, nil)
	if err != nil {
		p.gate.leave()
		return nil, p.memoryError(err)
	}
	in, ok := m.Owner.(*Instance)
	if !ok {
		in = newInstance(m, lent)
		m.Owner = in
	}
	return in, nil
}

// NewInstance returns an Instance of its own for the program: the fastest way
// in. It must be closed.
func (p *Program) NewInstance() (*Instance, error) {
	if !p.gate.enter() {
		return nil, p.closedError()
	}
	defer p.gate.leave()
	m, err := p.space.mem.NewInstance(p.kind)
	if err != nil {
		return nil, p.memoryError(err)
	}
	in := newInstance(m, own)
	in.bind(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.instances == nil {
		p.instances = make(map[*Instance]struct{})
	}
	p.instances[in] = struct{}{}
	return in, nil
}

// forget is told that an instance of its own is closed.
func (p *Program) forget(in *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.instances, in)
}

// own returns the instances of NewInstance.
func (p *Program) own() []*Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.instances))
}

// busy reports whether there are runs.
func (p *Program) busy() bool {
	for _, in := range append(p.own(), p.space.all(p.kind)...) {
		if in.p.Load() == p && in.frame.Had() {
			return true
		}
	}
	return p.gate.busy()
}

func (p *Program) closedError() error { return fmt.Errorf("%s: %w", p.Name(), ErrClosed) }

// memoryError translates what package cage says.
func (p *Program) memoryError(err error) error {
	switch {
	case errors.Is(err, cage.ErrClosed):
		err = fmt.Errorf("its Space: %w", ErrClosed)
	case errors.Is(err, abi.ErrFault):
		err = fmt.Errorf("memory of a run: %w", ErrRange)
	}
	return fmt.Errorf("%s: %w", p.Name(), err)
}

// Info tells how the program was compiled.
func (p *Program) Info() Info { return p.info }

// Close waits for the runs under way and gives back what the program holds;
// from then on every use of it is ErrClosed. Closing again does nothing.
// Called by a helper function while the program runs, Close would wait for
// its own caller: it returns an error that wraps ErrBusy and does nothing.
func (p *Program) Close() error {
	if p.busy() && withinRun() {
		return fmt.Errorf("%s: closed from within a run: %w", p.Name(), ErrBusy)
	}
	first := !p.closed.Swap(true)
	p.gate.close()
	for _, in := range p.own() {
		in.shutOut()
	}
	for _, in := range p.space.all(p.kind) {
		in.release(p)
	}
	if !first {
		return nil
	}
	err := p.engine.close()
	if p.ownSpace {
		err = errors.Join(err, p.space.Close())
	}
	return err
}

// Maps returns the maps that the program refers to, by name.
func (p *Program) Maps() []*Map {
	list := slices.Collect(maps.Values(p.maps))
	slices.SortFunc(list, func(a, b *Map) int { return strings.Compare(a.name, b.name) })
	return list
}

// Listing returns the program beside its machine code; of an interpreted
// program there is none.
func (p *Program) Listing() *Listing {
	l := &Listing{Source: p.src, Program: p.src.Program}
	if e, ok := p.engine.(*native); ok {
		l.Program, l.Code = e.lowered, e.code
	}
	return l
}

// Disassemble writes the program beside its machine code, in Intel syntax.
func (p *Program) Disassemble(w io.Writer) error { return p.Listing().Write(w) }

// Code returns a copy of the machine code, nil if the program is interpreted.
func (p *Program) Code() []byte {
	if e, ok := p.engine.(*native); ok {
		return slices.Clone(e.code.Bytes)
	}
	return nil
}
