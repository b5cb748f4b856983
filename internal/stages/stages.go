package stages

import (
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
)

// Stage is a part of compiling.
type Stage uint8

const (
	Total  Stage = iota // slots to code, with no clock in between
	Decode              // bytes to slots: a view of them, where that can be
	Check               // of the dialect; where jit doesn't do it by the way
	Lower               // cage only
	Blind               // where constants are hidden
	Draft               // the bytes of each slot, and the first pass; in the cage also fusing
	Jumps               // the passes over them, all but the first
	Join                // the bytes where they belong, and all the rest
	NumStages
)

var names = [NumStages]string{"total", "decode", "check", "lower", "blind", "draft", "jumps", "join"}

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
	clock   clock
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

// Compile turns slots, as they lie in an object, into code. A blinded program whose
// length doesn't settle is compiled again, see jit.Retry.
func (c *Compiler) Compile(slots []byte) error {
	c.code.Watch = nil
	if !c.Blind {
		return c.compile(slots, nil)
	}
	return jit.Retry(func() error { return c.compile(slots, nil) })
}

// Watch does the same and adds to t how long the stages took, but for Total.
// What it costs to look at the clock is taken off.
func (c *Compiler) Watch(slots []byte, t *Times) error {
	c.code.Watch = c.clock.watch()
	compile := func() error {
		c.clock.start()
		err := c.compile(slots, &c.clock)
		if err == nil {
			c.clock.add(t)
		}
		return err
	}
	if !c.Blind {
		return compile()
	}
	return jit.Retry(compile)
}

func (c *Compiler) compile(slots []byte, k *clock) error {
	p := &c.prog
	if insns, ok := bpf.View(slots); ok {
		p.Insns = insns
	} else if err := c.decode(slots); err != nil {
		return err
	}
	k.lap(Decode)
	if c.Cage {
		return c.cage(p, k)
	}
	// jit.Compile checks, and blinding lets nothing pass.
	if c.Blind {
		if err := c.hidden.Rewrite(p, nil); err != nil {
			return err
		}
		p = &c.hidden.Program
		k.lap(Blind)
	}
	return c.code.Compile(p, Kernel, mainFunc)
}

// cage compiles for the cage.
func (c *Compiler) cage(p *bpf.Program, k *clock) error {
	if err := c.survey.Check(p, bpf.Source); err != nil {
		return err
	}
	k.lap(Check)
	if err := c.lowered.LowerSurveyed(&c.survey); err != nil {
		return err
	}
	k.lap(Lower)
	p, funcs := &c.lowered.Program, c.lowered.Funcs
	if c.Blind {
		if err := c.hidden.Rewrite(p, nil); err != nil {
			return err
		}
		p, funcs = &c.hidden.Program, c.hidden.MoveFunctions(funcs)
		k.lap(Blind)
	}
	return c.code.CompileFunctions(p, funcs, &jit.Cage)
}

// decode copies slots that can't be read where they are.
func (c *Compiler) decode(slots []byte) (err error) {
	c.decoded, err = bpf.AppendDecode(c.decoded[:0], slots)
	c.prog.Insns = c.decoded
	return err
}

// Code returns what Compile made. It is overwritten by the next Compile.
func (c *Compiler) Code() *jit.Code { return &c.code }

// Passes returns how many passes Compile made; of several functions, the most.
func (c *Compiler) Passes() (n int) {
	for _, f := range c.code.Funcs {
		n = max(n, len(f.Passes))
	}
	return n
}
