package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit"
)

// Options of an object. The zero value and nil are valid.
type Options struct {
	// Options of the programs. Engine, Space, Clock, Random and Trace are the
	// test's own, and not used. A Budget of 0 means a million instructions: a
	// test should not hang.
	bpfjit.Options
	// Variables are what globals and constants of the object begin with, by
	// name.
	Variables map[string]any
}

// Object is a clang object under test. It isn't safe for concurrent use.
type Object struct {
	// Clock is what programs read as the time, in nanoseconds.
	Clock uint64
	// Trace are the lines that trace_printk has written.
	Trace []string

	t     testing.TB
	sides []*side // the engines; the first one's trace is kept
}

// side is the object in one engine.
type side struct {
	engine bpfjit.Engine
	c      *bpfjit.Collection
	trace  bytes.Buffer
}

// defaultBudget ends loops that a test would wait for.
const defaultBudget = 1_000_000

// Load loads all programs of an object file. It is closed when the test ends.
func Load(t testing.TB, file string, opts *Options) *Object {
	t.Helper()
	if opts == nil {
		opts = &Options{}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o := &Object{t: t}
	for _, engine := range []bpfjit.Engine{bpfjit.EngineJIT, bpfjit.EngineInterpreter} {
		spec, err := bpfjit.ReadSpec(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, value := range opts.Variables {
			v := spec.Variables[name]
			if v == nil {
				t.Fatalf("%s has no variable %q", file, name)
			}
			if err := v.Set(value); err != nil {
				t.Fatalf("%s: %s: %v", file, name, err)
			}
		}
		s := &side{engine: engine}
		options := opts.Options
		if options.Budget == 0 {
			options.Budget = defaultBudget
		}
		options.Engine, options.Space, options.Trace = engine, nil, &s.trace
		options.Clock = func() uint64 { return o.Clock }
		options.Random = rand.New(rand.NewPCG(1, 2)).Uint32
		s.c, err = bpfjit.LoadCollection(spec, &options)
		if engine == bpfjit.EngineJIT && errors.Is(err, bpfjit.ErrUnsupported) {
			t.Logf("no machine code: %v", err)
			continue // if it isn't the platform, the interpreter will say so
		}
		if err != nil {
			t.Fatalf("%s: %+v", file, err)
		}
		o.sides = append(o.sides, s)
		t.Cleanup(func() {
			if err := s.c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return o
}

// result is what a run gives in one engine.
type result struct {
	r0    uint64
	out   []byte
	err   error
	trace string
}

// String is what engines have to agree on.
func (r result) String() string {
	s := fmt.Sprintf("r0 %#x, memory %x", r.r0, r.out)
	if r.err != nil {
		s += fmt.Sprintf(", error %v", r.err)
	}
	return s + ", printed " + fmt.Sprintf("%q", r.trace)
}

// each runs a program in every engine and compares.
func (o *Object) each(name string, f func(p *bpfjit.Program) (uint64, []byte, error)) result {
	o.t.Helper()
	var first result
	for i, s := range o.sides {
		p := s.c.Programs[name]
		if p == nil {
			o.t.Fatalf("the object has no program %q", name)
		}
		s.trace.Reset()
		var r result
		r.r0, r.out, r.err = f(p)
		r.out, r.trace = slices.Clone(r.out), s.trace.String()
		if i == 0 {
			first = r
		} else if r.String() != first.String() {
			o.t.Fatalf("%s: engines disagree\n%v: %v\n%v: %v", name, o.sides[0].engine, first, s.engine, r)
		}
	}
	for line := range strings.Lines(first.trace) {
		o.Trace = append(o.Trace, strings.TrimSuffix(line, "\n"))
	}
	return first
}

// Packet runs a program on a packet and returns its verdict, R0, and the
// packet as it left it. A run that doesn't end well fails the test.
func (o *Object) Packet(program string, packet []byte) (verdict uint32, out []byte) {
	o.t.Helper()
	r0, out, err := o.TryPacket(program, packet)
	if err != nil {
		o.t.Fatalf("%+v", err)
	}
	return uint32(r0), out
}

// TryPacket does the same for runs that may fail.
func (o *Object) TryPacket(program string, packet []byte) (r0 uint64, out []byte, err error) {
	o.t.Helper()
	r := o.each(program, func(p *bpfjit.Program) (uint64, []byte, error) { return p.RunPacket(packet) })
	return r.r0, r.out, r.err
}

// Memory runs a program on memory, R1 being its address and R2 its length, and
// returns R0. What the program writes is in mem afterwards. A run that doesn't
// end well fails the test.
func (o *Object) Memory(program string, mem []byte) (r0 uint64) {
	o.t.Helper()
	r := o.each(program, func(p *bpfjit.Program) (uint64, []byte, error) {
		m := slices.Clone(mem)
		r0, err := p.Run(m)
		return r0, m, err
	})
	if r.err != nil {
		o.t.Fatalf("%+v", r.err)
	}
	copy(mem, r.out)
	return r.r0
}

// Value reads an element of a map into value, a pointer to fixed-size data as
// encoding/binary takes it. key is such data too.
func (o *Object) Value(name string, key, value any) {
	o.t.Helper()
	var first []byte
	for i, s := range o.sides {
		b, err := o.find(s, name).Lookup(o.encode(key))
		if err != nil {
			o.t.Fatalf("map %s: %v", name, err)
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			o.t.Fatalf("map %s: engines disagree at key %v: %x, %x", name, key, first, b)
		}
	}
	if _, err := binary.Decode(first, binary.LittleEndian, value); err != nil {
		o.t.Fatalf("map %s: %v", name, err)
	}
}

// Set writes an element of a map. key and value are fixed-size data.
func (o *Object) Set(name string, key, value any) {
	o.t.Helper()
	for _, s := range o.sides {
		if err := o.find(s, name).Update(o.encode(key), o.encode(value), 0); err != nil {
			o.t.Fatalf("map %s: %v", name, err)
		}
	}
}

// Engines lists the engines that the object runs in.
func (o *Object) Engines() []bpfjit.Engine {
	var all []bpfjit.Engine
	for _, s := range o.sides {
		all = append(all, s.engine)
	}
	return all
}

func (o *Object) find(s *side, name string) *bpfjit.Map {
	o.t.Helper()
	m := s.c.Maps[name]
	if m == nil {
		o.t.Fatalf("the object has no map %q", name)
	}
	return m
}

func (o *Object) encode(v any) []byte {
	o.t.Helper()
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		o.t.Fatal(err)
	}
	return b
}
