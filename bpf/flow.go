package bpf

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// function checks where a function's jumps lead and how it ends.
func (c *checker) function(f Func) error {
	insns := c.p.Insns
	for slot := f.Start; slot < f.End; slot++ {
		d, form, ok := distance(insns[slot])
		if !ok || toFunction(form) {
			continue
		}
		field := "off"
		if form.Imm.Use == tables.UseDistance {
			field = "imm"
		}
		switch t := int64(slot) + 1 + int64(d); {
		case t < 0 || t >= int64(len(insns)):
			return c.fail(slot, field, "leads to slot %d, outside of the program", t)
		case t < int64(f.Start) || t >= int64(f.End):
			return c.fail(slot, field, "leads to slot %d, outside of its function", t)
		case c.second(int(t)):
			return c.fail(slot, field, "leads into the 64-bit constant of slot %d", t-1)
		}
	}
	if c.ends(f) {
		return nil
	}
	last := f.End - 1
	if c.second(last) {
		last--
	}
	what := "the function"
	if f.Start == 0 {
		what = "the program"
	}
	return c.fail(last, "", "%s can go on behind its last instruction", what)
}

// ends reports whether execution can't pass the end of a function.
func (c *checker) ends(f Func) bool {
	switch form(c.p.Insns[f.End-1]).Flow {
	case tables.FlowExit, tables.FlowJump:
		return true
	case tables.FlowCall:
		return c.dialect == Translated
	}
	return false
}

// form returns the form of an instruction that has one.
func form(i Insn) *tables.FormInfo {
	f, _ := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
	return &tables.Forms[f]
}

// nesting refuses recursion and calls nested too deeply. A function that only
// an address constant refers to counts as called from outside.
//
// The walk is depth-first and goes at most abi.MaxFrames deep: a function
// once left knows how deep it goes by itself, so each call is looked at once.
type nesting struct {
	program *Program
	funcs   []Func
	deep    []int8 // by function: the number of frames from it down, 0 if not known yet
}

const onPath = -1 // instead of a number of frames

func (n *nesting) check() error {
	clear(n.deep)
	for f := range n.funcs {
		if n.deep[f] == 0 {
			if err := n.walk(f, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *nesting) walk(f int, frames int8) error {
	n.deep[f] = onPath
	most := int8(1)
	for _, c := range n.funcs[f].Calls {
		if n.deep[c.Callee] == onPath {
			return n.fail(c, "recurses: function at slot %d is running already")
		}
		if frames == abi.MaxFrames || n.deep[c.Callee] > abi.MaxFrames-frames {
			return n.fail(c, fmt.Sprintf("calls the function at slot %%d: more than %d frames", abi.MaxFrames))
		}
		if n.deep[c.Callee] == 0 {
			if err := n.walk(c.Callee, frames+1); err != nil {
				return err
			}
		}
		most = max(most, 1+n.deep[c.Callee])
	}
	n.deep[f] = most
	return nil
}

func (n *nesting) fail(c Call, reason string) error {
	return &Error{Slot: c.Slot, Insn: n.program.Insns[c.Slot], Field: "imm", Reason: fmt.Sprintf(reason, n.funcs[c.Callee].Start)}
}
