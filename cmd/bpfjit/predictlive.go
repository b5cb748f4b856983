package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/oracle"
	"github.com/bpfjit/bpfjit/jit"
)

// predictKernel is what the running kernel made of a function.
type predictKernel struct {
	Code  int  `json:"code_bytes"`
	Equal bool `json:"equal"` // byte for byte what bpfjit makes of it
}

// errHardened: what a kernel shows has to be plain.
var errHardened = errors.New("the kernel has hidden the constants already: -live needs net.core.bpf_jit_harden=0, or 1")

// The code of "xor AX, constant", which nothing but hiding constants makes.
var (
	xorAX32 = []byte{0x41, 0x81, 0xf2}
	xorAX64 = []byte{0x49, 0x81, 0xf2}
)

// estimated returns the functions of a program as far as they can be told
// without a kernel.
func estimated(src *bpfjit.Source, profile *jit.Profile) ([]*function, error) {
	list, err := src.Translate()
	if err != nil {
		return nil, err
	}
	var funcs []*function
	for i := range list {
		f := &list[i]
		if f.Name == "" {
			f.Name = fmt.Sprintf("function %d", i)
		}
		funcs = append(funcs, &function{name: f.Name, source: src, plain: f.Program, toHide: f.Program,
			stack: f.Function.StackDepth, compile: func(p *bpf.Program) (*jit.Code, error) {
				return jit.Compile(p, profile, &f.Function)
			}})
	}
	return funcs, nil
}

// asked returns the functions of a program as the running kernel's verifier
// gave them to its JIT. The error is a *kernel.LoadError if it refused them.
func asked(o *object, name string) ([]*function, error) {
	constants, err := kernel.ReadConstants()
	if err != nil {
		return nil, err
	}
	src, loaded, err := o.kernel(name)
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	info, err := loaded.Info()
	if err != nil {
		return nil, err
	}
	all, err := loaded.Functions()
	if err != nil {
		return nil, err
	}
	starts, err := bpf.Functions(src.Program)
	if err != nil {
		return nil, err
	}
	origin := origins(info)
	var funcs []*function
	for i := range all {
		f := &all[i]
		if hidden(f.Insns) {
			return nil, errHardened
		}
		p := &bpf.Program{Insns: f.Insns, Origin: origin[f.Start : f.Start+len(f.Insns)]}
		g := &function{name: fmt.Sprintf("function %d", i), source: src, plain: p,
			toHide: toHide(p, info.Xlated[f.Start:]), stack: f.StackDepth}
		if i < len(starts) && src.FuncName(starts[i].Start) != "" {
			g.name = src.FuncName(starts[i].Start)
		}
		g.compile = func(p *bpf.Program) (*jit.Code, error) {
			now := *f
			now.Insns = p.Insns
			return oracle.Compile(constants, &now, all)
		}
		g.kernel = &predictKernel{Code: len(f.Jited)}
		if code, err := g.compile(p); err == nil {
			g.kernel.Equal = bytes.Equal(code.Bytes, f.Jited)
		}
		if !g.kernel.Equal && (bytes.Contains(f.Jited, xorAX32) || bytes.Contains(f.Jited, xorAX64)) {
			// Of several functions the kernel shows the instructions before.
			return nil, errHardened
		}
		funcs = append(funcs, g)
	}
	return funcs, nil
}

// origins returns the source slots of the translated ones. What the verifier
// inserted counts to the instruction before it.
func origins(info *kernel.Info) []int32 {
	list := make([]int32, len(info.Xlated))
	last := int32(0)
	lines := info.Lines
	for slot := range list {
		for len(lines) > 0 && lines[0].Slot <= slot {
			last, lines = int32(max(lines[0].Source, 0)), lines[1:]
		}
		list[slot] = last
	}
	return list
}

// toHide returns a function as it is when its constants are to be hidden:
// then no tail call is a direct one, and addresses of functions, which the
// kernel puts in later, stay as they are. shown is what the kernel shows.
func toHide(p *bpf.Program, shown []bpf.Insn) *bpf.Program {
	const (
		tailCall   = 0xf5
		constant   = 0x18
		ofFunction = 4
	)
	hide := &bpf.Program{Insns: slices.Clone(p.Insns), Flags: make([]bpf.Flag, len(p.Insns)), Origin: p.Origin, Index: p.Index}
	for slot := range hide.Insns {
		switch in := &hide.Insns[slot]; {
		case in.Op == tailCall:
			in.Imm = 0
		case in.Op == constant && shown[slot].Src() == ofFunction:
			hide.Flags[slot] = bpf.Inserted
		}
	}
	return hide
}

// hidden tells whether a kernel has hidden the constants of a function: by a
// constant in AX and a second one behind it.
func hidden(insns []bpf.Insn) bool {
	const movK, xorK, anyWidth, ax = 0xb4, 0xa4, 0x03, 11
	for i := 1; i < len(insns); i++ {
		a, b := insns[i-1], insns[i]
		if a.Op&^anyWidth == movK&^anyWidth && b.Op&^anyWidth == xorK&^anyWidth && a.Dst() == ax && b.Dst() == ax && a.Src() == 0 && b.Src() == 0 {
			return true
		}
	}
	return false
}
