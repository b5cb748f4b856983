package bpfjit

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/helpers"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
	"github.com/bpfjit/bpfjit/machine"
	"github.com/bpfjit/bpfjit/perf"
)

// native is the engine that runs machine code.
type native struct {
	lowered *bpf.Program
	code    *jit.Code
	image   *image.Image
	helpers *machine.Helpers
	budget  int64
	perf    *perf.Log // nil: perf(1) isn't told
}

// newNative makes machine code of a checked program whose maps are constants,
// and notes in info how that went. It is the way that ARCHITECTURE.md draws:
//
//	lower -> blind, if asked for -> jit -> image
func newNative(survey *bpf.Survey, s *settings, info *Info) (*native, error) {
	if err := machine.Recheck(); err != nil {
		return nil, err
	}
	region, err := codeRegion(s)
	if err != nil {
		return nil, err
	}
	var result lower.Result
	if err := result.LowerSurveyed(survey); err != nil {
		return nil, err
	}
	functionHandles(&result.Program, result.Funcs)
	lowered, code, err := compileLowered(&result, s)
	if err != nil {
		return nil, atSource(err, lowered)
	}
	im, err := region.Publish(code.Bytes, faultTable(code), s.Rand)
	if err != nil {
		return nil, err
	}
	info.Lowered, info.Blinded, info.Passes = len(lowered.Insns), s.Blinding, passes(code)
	stats := region.Stats()
	info.Fallback, info.Kept = stats.SingleView, stats.Kept
	info.Code, info.Image, info.Start = im.Len(), im.Size(), im.Start()
	return &native{lowered: lowered, code: code, image: im, helpers: nativeHelpers(s), budget: s.Budget}, nil
}

// tell shows the code to the caller and to perf(1), where they are to see it. The
// error is that of Options.Dump: the caller's, and nothing that an interpreter would
// do better. Then it frees the code.
func (e *native) tell(src *Source, s *settings, info *Info) error {
	if s.Dump != nil {
		err := WriteRaw(s.Dump, len(e.lowered.Insns), uint64(e.image.Addr()), info.Passes, e.code.Bytes)
		if err != nil {
			e.image.Free()
			return fmt.Errorf("Options.Dump: %w", err)
		}
	}
	if s.Perf != 0 {
		e.perf, info.Perf = tellPerf(s.Perf, perfFuncs(s.Name, src, e))
	}
	return nil
}

// compileLowered compiles a lowered program, and hides its constants before if that
// is wanted. It also returns what was compiled, which an error is about.
func compileLowered(r *lower.Result, s *settings) (p *bpf.Program, code *jit.Code, err error) {
	code = new(jit.Code)
	if !s.Blinding {
		return &r.Program, code, code.CompileFunctions(&r.Program, r.Funcs, cageProfile())
	}
	var hidden blind.Result
	err = jit.Retry(func() error {
		if err := hidden.Rewrite(&r.Program, s.Rand); err != nil {
			p = &r.Program
			return err
		}
		p = &hidden.Program
		return code.CompileFunctions(p, hidden.MoveFunctions(r.Funcs), cageProfile())
	})
	return p, code, err
}

// standardNative are standardHelpers for machine code.
var standardNative = sync.OnceValue(func() *machine.Helpers { return nativeTable(standardHelpers(), nil) })

// nativeHelpers are the helper functions for machine code.
func nativeHelpers(s *settings) *machine.Helpers {
	if s.foreign == nil {
		return standardNative()
	}
	return nativeTable(s.helpers, s.foreign)
}

// nativeTable takes native code for our own helpers where there is some. It
// must not stand for a function of the caller's.
func nativeTable(table *helpers.Table, foreign map[uint32]bool) *machine.Helpers {
	code := map[uint32]machine.Native{
		helpers.MapLookupElem:     machine.NativeLookup,
		helpers.GetSmpProcessorID: machine.NativeCPU,
	}
	maps.DeleteFunc(code, func(number uint32, _ machine.Native) bool { return foreign[number] })
	return machine.NewHelpers(maps.Collect(table.All())).WithNative(code)
}

// atSource makes an error about a slot of p one about the source.
func atSource(err error, p *bpf.Program) error {
	var be *bpf.Error
	if !errors.As(err, &be) || be.Slot < 0 {
		return err
	}
	moved := *be
	moved.Slot = p.Source(be.Slot)
	return &moved
}

// cageProfile is the profile for this processor.
func cageProfile() *jit.Profile {
	if machine.HasBMI2() {
		return &jit.Cage
	}
	return &jit.CageNoBMI2
}

// functionHandles makes the addresses of p's functions what they are in the cage:
// handles by the functions' numbers. p is changed.
func functionHandles(p *bpf.Program, funcs []bpf.Func) {
	for _, f := range funcs {
		for _, ref := range f.Refs {
			handle := abi.FuncHandle(ref.Callee)
			lo, hi := &p.Insns[ref.Slot], &p.Insns[ref.Slot+1]
			lo.Regs = abi.Registers(lo.Dst(), abi.Imm64Value)
			lo.Imm, hi.Imm = int32(uint32(handle)), int32(uint32(handle>>32))
		}
	}
}

// passes adds up the lengths that the passes over each function arrived at.
// One that needs fewer than others keeps its last length.
func passes(code *jit.Code) []int {
	var sum []int
	for _, f := range code.Funcs {
		if len(f.Passes) > len(sum) {
			sum = append(sum, make([]int, len(f.Passes)-len(sum))...)
		}
	}
	for _, f := range code.Funcs {
		for i := range sum {
			sum[i] += f.Passes[min(i, len(f.Passes)-1)]
		}
	}
	return sum
}

// faultTable encodes the loads that read as zero where they fault.
func faultTable(code *jit.Code) []byte {
	entries := make([]image.Entry, len(code.Faults))
	for i, f := range code.Faults {
		register := -1
		if f.Clear >= 0 {
			register = int(abi.Native[f.Clear])
		}
		entries[i] = image.NewEntry(int(f.Offset), int(f.Len), register)
	}
	return image.AppendTable(nil, len(code.Bytes), entries)
}

func (*native) kind() cage.Kind { return cage.Window }

// run goes on with a run that the instance has entered.
func (e *native) run(in *Instance, _, _ uint64, _ func() error) result {
	var out machine.Result
	in.frame.Finish(&out)
	if out.Stop != abi.StopExit {
		e.locate(&out)
	}
	return result{out.Result, out.Signal}
}

// locate finds the instruction at which a run ended early, and, for a fault,
// the address that it was about.
func (e *native) locate(out *machine.Result) {
	slot := -1
	if out.PC >= 0 && out.PC < len(e.code.Bytes) {
		slot = e.code.Slot(uint32(out.PC))
	}
	if slot < 0 {
		return // in a prologue: the native stack, say
	}
	out.Slot = e.lowered.Source(slot)
	if out.Stop == abi.StopFault {
		out.Addr = effective(e.lowered.Insns[slot], out)
	}
}

// effective returns the guest address that a load or a store is about. Plain
// ones have it in r11, but for those of the frame: the register that it came
// from may not have got it.
func effective(in bpf.Insn, at *machine.Result) int64 {
	base := in.Dst()
	const loadAcquire = 0x100
	class, mode := in.Op&abi.ClassMask, in.Op&abi.ModeMask
	if class == abi.ClassLDX || class == abi.ClassSTX && mode == 0xc0 && in.Imm == loadAcquire {
		base = in.Src()
	}
	switch {
	case base > abi.R10:
		return 0
	case base < abi.R10 && (class == abi.ClassLDX || mode == 0x60):
		return int64(at.R11) + int64(in.Off)
	}
	return int64(uint32(at.R[base])) + int64(in.Off)
}

// close frees the executable memory.
func (e *native) close() error {
	e.image.Free()
	if e.perf == nil {
		return nil
	}
	return e.perf.Close()
}
