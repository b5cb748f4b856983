package oracle

import (
	"bytes"
	"fmt"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/tables"
)

// Difference is a function that the kernel compiled in another way.
type Difference struct {
	Function  *kernel.Function
	Got, Want []byte
	// Offset of the first byte that differs, and the slot that it belongs to
	// in Got; -1 in the prologue.
	Offset, Slot int
}

func (d *Difference) Error() string {
	at := "in the prologue"
	if d.Slot >= 0 && d.Slot < len(d.Function.Insns) {
		at = fmt.Sprintf("at slot %d (%s)", d.Slot, bpf.Text(d.Function.Insns[d.Slot]))
	}
	return fmt.Sprintf("function %d: %d bytes, the kernel has %d; they differ at offset %d, %s",
		d.Function.Index, len(d.Got), len(d.Want), d.Offset, at)
}

// Profile is jit's view of the running kernel.
func Profile(k *kernel.Constants) *jit.Profile {
	p := jit.Linux618
	if !k.BMI2 {
		p.Rows = tables.KernelNoBMI2
	}
	p.ReturnThunk = k.ReturnThunk != 0
	p.StraightLine = k.StraightLine
	p.IBT = k.Endbr
	if k.IndirectThunk == 0 {
		p.Indirect = jit.JumpPlain
	}
	p.Percpu = k.PercpuOff
	if k.MaxEntriesOff != 0 {
		p.MapMaxEntries = int8(k.MaxEntriesOff)
		p.ArrayPtrs = k.ProgramsOff
		p.ProgFunc = int8(k.FunctionOff)
	}
	return &p
}

// Compile translates a function of a loaded program, linked to where the
// kernel has it. all are the functions of the program.
func Compile(k *kernel.Constants, f *kernel.Function, all []kernel.Function) (*jit.Code, error) {
	fn := &jit.Function{
		StackDepth:        f.StackDepth,
		Subprogram:        f.Subprog,
		TailCallReachable: f.TailCallReachable,
		ExceptionBoundary: f.ExceptionBoundary,
		ExceptionCallback: f.ExceptionCallback,
	}
	if f.Arena {
		fn.ArenaKernel, fn.ArenaUser = f.ArenaBase, f.ArenaUser
	}
	if f.PrivateStack {
		fn.PrivateStack = f.PrivateFrame
	}
	code, err := jit.Compile(&bpf.Program{Insns: f.Insns}, Profile(k), fn)
	if err != nil {
		return nil, err
	}
	return code, code.Link(f.Addr, func(r jit.Reloc) (uint64, error) {
		switch r.Kind {
		case jit.RelReturnThunk:
			return k.ReturnThunk, nil
		case jit.RelIndirectThunk:
			return k.IndirectThunk, nil
		case jit.RelLocal:
			callee := int(f.Insns[r.Slot].Imm)
			if callee < 0 || callee >= len(all) {
				return 0, fmt.Errorf("oracle: slot %d calls function %d of %d", r.Slot, callee, len(all))
			}
			return all[callee].Addr, nil
		case jit.RelHelper, jit.RelKfunc:
			return k.CallBase + uint64(int64(f.Insns[r.Slot].Imm)), nil
		}
		return 0, fmt.Errorf("oracle: slot %d has an unresolved constant", r.Slot)
	})
}

// Compare compiles every function and compares it with the kernel's code, all
// displacements included. It returns the number of bytes that were equal; the
// error is a *Difference where there is one.
func Compare(k *kernel.Constants, all []kernel.Function) (equal int, err error) {
	for i := range all {
		f := &all[i]
		code, err := Compile(k, f, all)
		if err != nil {
			return equal, err
		}
		if bytes.Equal(code.Bytes, f.Jited) {
			equal += len(f.Jited)
			continue
		}
		d := &Difference{Function: f, Got: code.Bytes, Want: f.Jited}
		for d.Offset < min(len(d.Got), len(d.Want)) && d.Got[d.Offset] == d.Want[d.Offset] {
			d.Offset++
		}
		d.Slot = code.Slot(uint32(d.Offset))
		return equal, d
	}
	return equal, nil
}
