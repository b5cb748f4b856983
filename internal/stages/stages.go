package stages

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
)

// Stage is a part of compiling.
type Stage uint8

const (
	Total  Stage = iota // slots to code, one stage behind the other
	Decode              // bytes to slots: a view of them, where that can be
	Check               // of the dialect; where jit doesn't do it by the way
	Lower               // cage only
	Blind               // where constants are hidden
	JIT                 // slots to code: Draft, Jumps and Join
	Draft               // the bytes of each slot; kernel only
	Jumps               // what of JIT is neither Draft nor Join: the passes, mainly
	Join                // the bytes where they belong; kernel only
	NumStages
)

var names = [NumStages]string{"total", "decode", "check", "lower", "blind", "jit", "draft", "jumps", "join"}

func (s Stage) String() string { return names[s] }

// Options say which way a Compiler goes:
//
//	kernel   decode, [blind,] jit.Compile, which checks by the way
//	cage     decode, check as source, lower, [blind,] jit.CompileCage
type Options struct {
	Cage  bool
	Blind bool
}

// Compiler compiles programs, one after the other, in memory that it uses
// again.
type Compiler struct {
	Options
	prog    bpf.Program
	decoded []bpf.Insn // where slots can't be read where they are
	survey  bpf.Survey // of prog, where it is checked
	lowered lower.Result
	hidden  blind.Result
	code    jit.Code
	joined  joined
}

// Kernel is the profile of the kernel's code: Linux 6.18 with plain returns,
// so that all of the code is known without addresses. Helper calls and maps
// are relocations.
var Kernel = func() *jit.Profile {
	p := jit.Linux618
	p.ReturnThunk = false
	return &p
}()

// mainFunc makes a function a main program that uses its whole frame.
var mainFunc = &jit.Function{StackDepth: 512}

// maxTries is how often a program is blinded whose length doesn't settle.
const maxTries = 10

// Compile turns slots, as they lie in an object, into code. Of a million
// slots now and then the length doesn't settle; with other random numbers it
// does, so a blinded program is then compiled again.
func (c *Compiler) Compile(slots []byte) error {
	for try := 1; ; try++ {
		err := c.compile(slots)
		if !c.Blind || try == maxTries || !errors.Is(err, jit.ErrConvergence) {
			return err
		}
	}
}

func (c *Compiler) compile(slots []byte) error {
	p := &c.prog
	if err := c.decode(p, slots); err != nil {
		return err
	}
	var funcs []bpf.Func
	if c.Cage {
		if err := c.check(p); err != nil {
			return err
		}
		if err := c.lower(&c.survey); err != nil {
			return err
		}
		p, funcs = &c.lowered.Program, c.lowered.Funcs
	}
	if c.Blind {
		if err := c.blind(p); err != nil {
			return err
		}
		p, funcs = &c.hidden.Program, nil
	}
	return c.jit(p, funcs)
}

// Code returns what Compile made. It is overwritten by the next Compile.
func (c *Compiler) Code() *jit.Code { return &c.code }

func (c *Compiler) decode(p *bpf.Program, slots []byte) (err error) {
	var ok bool
	if p.Insns, ok = bpf.View(slots); ok {
		return nil
	}
	c.decoded, err = bpf.AppendDecode(c.decoded[:0], slots)
	p.Insns = c.decoded
	return err
}

// check is for the cage alone. For the kernel profile jit.Compile checks, and
// blinding lets nothing pass.
func (c *Compiler) check(p *bpf.Program) error { return c.survey.Check(p, bpf.Source) }

func (c *Compiler) lower(s *bpf.Survey) error { return c.lowered.LowerSurveyed(s) }

func (c *Compiler) blind(p *bpf.Program) error { return c.hidden.Rewrite(p, nil) }

// jit compiles a program whose functions are known, or nil.
func (c *Compiler) jit(p *bpf.Program, funcs []bpf.Func) error {
	switch {
	case !c.Cage:
		return c.code.Compile(p, Kernel, mainFunc)
	case funcs == nil:
		return c.code.CompileCage(p, &jit.Cage)
	}
	return c.code.CompileFunctions(p, funcs, &jit.Cage)
}

// Work is a stage of one program, to be run as often as one likes: what the
// stages before it made is there.
type Work struct {
	Stage Stage
	Run   func() error
}

// Stages compiles a program and returns its stages in their order, Total
// first. They can be mixed with those of other programs: all they share is
// memory for results. Jumps isn't among them: it has no beginning and no end,
// and is what JIT needs besides Draft and Join.
func (c *Compiler) Stages(slots []byte) ([]Work, error) {
	if err := c.Compile(slots); err != nil {
		return nil, err
	}
	p := new(bpf.Program)
	if err := c.decode(p, slots); err != nil {
		return nil, err
	}
	p.Insns = slices.Clone(p.Insns)
	work := []Work{
		{Total, func() error { return c.Compile(slots) }},
		{Decode, func() error { return c.decode(&c.prog, slots) }},
	}
	// What a stage is given is a copy: what is hidden anew, for one, has other
	// sizes, and perhaps none that settle.
	var funcs []bpf.Func
	if c.Cage {
		survey := new(bpf.Survey)
		if err := survey.Check(p, bpf.Source); err != nil {
			return nil, err
		}
		source := p
		work = append(work, Work{Check, func() error { return c.check(source) }}, Work{Lower, func() error { return c.lower(survey) }})
		p, funcs = clone(&c.lowered.Program), cloneFuncs(c.lowered.Funcs)
	}
	if c.Blind {
		input := p
		work = append(work, Work{Blind, func() error { return c.blind(input) }})
		p, funcs = clone(&c.hidden.Program), nil
	}
	work = append(work, Work{JIT, func() error { return c.jit(p, funcs) }})
	if c.Cage {
		return work, nil // its instructions are fused before they are drafted
	}
	e, err := newEncoding(p.Insns, &c.code)
	if err != nil {
		return nil, err
	}
	return append(work, Work{Draft, func() error { return c.joined.write(e.insns) }}, Work{Join, func() error { return c.joined.join(e) }}), nil
}

func clone(p *bpf.Program) *bpf.Program {
	return &bpf.Program{
		Insns: slices.Clone(p.Insns), Flags: slices.Clone(p.Flags), Origin: slices.Clone(p.Origin), Index: slices.Clone(p.Index),
	}
}

func cloneFuncs(funcs []bpf.Func) []bpf.Func {
	funcs = slices.Clone(funcs)
	for i := range funcs {
		f := &funcs[i]
		f.Calls, f.Refs = slices.Clone(f.Calls), slices.Clone(f.Refs)
	}
	return funcs
}

// Times are how long the stages of a program take. Stages that it doesn't go
// through are 0.
type Times [NumStages]time.Duration

// Time times all stages of a program; limit is how long to look at each. They
// take turns, since Jumps is a difference.
func (c *Compiler) Time(slots []byte, limit time.Duration) (t Times, err error) {
	work, err := c.Stages(slots)
	if err != nil {
		return t, err
	}
	watches := make([]watch, len(work))
	for start, k := time.Now(), 0; k < minBatches || time.Since(start) < limit*time.Duration(len(work)); k++ {
		for i, w := range work {
			if err := watches[i].run(w.Run); err != nil {
				return t, fmt.Errorf("%v: %w", w.Stage, err)
			}
		}
	}
	for i, w := range work {
		t[w.Stage] = watches[i].least
	}
	if t[Draft] != 0 {
		t[Jumps] = max(0, t[JIT]-t[Draft]-t[Join])
	}
	return t, nil
}

const (
	// batch is how long runs are timed together, so that looking at the
	// clock, 50 ns, doesn't count.
	batch = 20 * time.Microsecond
	// minBatches is how many batches there are in any case.
	minBatches = 3
)

// Least returns the time of f, of the least disturbed of several batches of
// runs. It takes about as long as limit says, but for very slow f.
func Least(f func() error, limit time.Duration) (time.Duration, error) {
	var w watch
	for start, k := time.Now(), 0; k < minBatches || time.Since(start) < limit; k++ {
		if err := w.run(f); err != nil {
			return 0, err
		}
	}
	return w.least, nil
}

// watch times batches of runs.
type watch struct {
	n     int // runs in a batch
	least time.Duration
}

// run times a batch. The first one finds out how many runs that is.
func (w *watch) run(f func() error) error {
	w.n = max(w.n, 1)
	for {
		began := time.Now()
		for range w.n {
			if err := f(); err != nil {
				return err
			}
		}
		d := time.Since(began)
		if d < batch {
			w.n, w.least = 2*w.n, 0
			continue
		}
		if d /= time.Duration(w.n); w.least == 0 || d < w.least {
			w.least = d
		}
		return nil
	}
}

// Median returns the one in the middle of durations, which it sorts.
func Median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
