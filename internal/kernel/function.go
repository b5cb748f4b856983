package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
)

// Function is one BPF function as the kernel's JIT took and gave it.
type Function struct {
	// Index of the function in its program; 0 is the main program.
	Index int
	// Name is the one given by Spec.Debug, else "".
	Name string
	// Start is the function's first slot in Info.Xlated.
	Start int
	// Insns is what the JIT was given:
	//   - a tail call is OpTailCall; Imm is 0 (indirect) or counts from 1
	//     (direct),
	//   - a load that may fault has mode PROBE_MEM,
	//   - an ldimm64 of a map, a map value or a function holds the address as
	//     a plain constant,
	//   - a call of a BPF function has Src CallLocal, and the index of the
	//     callee in Imm,
	//   - any other call has in Imm the distance from Constants.CallBase.
	Insns []abi.Insn
	// Jited is the function's machine code as the JIT emitted it, Addr its
	// address. Direct tail calls, which the kernel rewrites when their slot of
	// the map is filled, are as if it were empty.
	Jited []byte
	Addr  uint64
	// Calls of the function, in order.
	Calls []Call
	// Return is where the function goes to return: the address of the return
	// thunk, or 0 for a plain ret or a function that has no EXIT.
	Return uint64
	// Offsets has, for each slot of Insns, where the JIT's code for it begins
	// in Jited, or -1 where that isn't known. nil without Spec.Debug.
	Offsets []int
	Params
}

// Call is a call instruction of a Function.
type Call struct {
	Slot int   // in Function.Insns
	Kind uint8 // abi.CallHelper, CallLocal or CallKfunc
	// Callee is the index of the called function, -1 unless Kind is CallLocal.
	Callee int
	Target uint64 // address
	Name   string // of the helper or kfunc
}

// ErrHidden reports that an opcode that the dump hides can't be restored. If
// the program wasn't loaded with Spec.Debug, that would help.
var ErrHidden = errors.New("kernel: can't tell hidden opcodes apart")

// split cuts a dump into functions.
func split(i *Info) ([]Function, error) {
	n := len(i.Addrs)
	if len(i.Lens) != n || n == 0 {
		return nil, fmt.Errorf("kernel: %d functions' addresses, %d lengths", n, len(i.Lens))
	}
	starts := translatedFunctions(i)
	if len(starts) < n {
		return nil, fmt.Errorf("kernel: %d functions in the dump, %d in the machine code", len(starts), n)
	}
	fs := make([]Function, n)
	code := i.Jited
	for k := range fs {
		end := len(i.Xlated)
		if k+1 < len(starts) {
			end = starts[k+1]
		}
		if int(i.Lens[k]) > len(code) {
			return nil, fmt.Errorf("kernel: function %d of %d bytes, only %d are left", k, i.Lens[k], len(code))
		}
		fs[k] = Function{Index: k, Start: starts[k], Insns: slices.Clone(i.Xlated[starts[k]:end]),
			Jited: code[:i.Lens[k]:i.Lens[k]], Addr: i.Addrs[k]}
		code = code[i.Lens[k]:]
	}
	return fs, nil
}

// defaultCallback is what the verifier appends to a program that throws and
// has no callback of its own. The kernel shows its instructions, not its code.
var defaultCallback = []abi.Insn{
	{Op: 0xbf, Regs: abi.Registers(abi.R0, abi.R1)},
	{Op: abi.OpExit},
}

// cutCallback takes the default callback off the last function.
func cutCallback(fs []Function) {
	own := slices.ContainsFunc(fs, func(f Function) bool { return f.ExceptionCallback })
	last := &fs[len(fs)-1]
	if n := len(last.Insns) - len(defaultCallback); fs[0].ExceptionBoundary && !own &&
		n > 0 && slices.Equal(last.Insns[n:], defaultCallback) {
		last.Insns = last.Insns[:n]
	}
}

// translatedFunctions returns the first slots of the functions of a dump.
func translatedFunctions(i *Info) []int {
	starts := []int{0}
	if len(i.Funcs) > 0 {
		starts = nil
	}
	for _, f := range i.Funcs {
		starts = append(starts, f.Slot)
	}
	if starts[0] == 0 && len(starts) == len(i.Funcs) {
		return starts
	}
	for s := 0; s < len(i.Xlated); s++ {
		in := i.Xlated[s]
		switch {
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
			// Imm is the callee's index; Off the distance, if it fits.
			starts = append(starts, s+1+int(in.Off))
		case in.Op == abi.OpLdImm64:
			if in.Src() == abi.Imm64Func {
				starts = append(starts, s+1+int(in.Imm))
			}
			s++
		}
	}
	slices.Sort(starts)
	return slices.Compact(starts)
}

// restore puts back into f what the dump hides, apart from map addresses.
// all are the functions of the program.
func (f *Function) restore(all []Function, i *Info, c *Constants) error {
	for s := 0; s < len(f.Insns); s++ {
		in := &f.Insns[s]
		switch {
		case in.Op == abi.OpCall && in.Src() == abi.CallHelper && in.Imm == tailCallHelper:
			in.Op, in.Imm = abi.OpTailCall, 0
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
			if in.Imm < 0 || int(in.Imm) >= len(all) {
				return fmt.Errorf("kernel: slot %d calls function %d of %d", f.Start+s, in.Imm, len(all))
			}
			f.Calls = append(f.Calls, Call{s, abi.CallLocal, int(in.Imm), all[in.Imm].Addr, all[in.Imm].Name})
		case in.Op == abi.OpCall:
			f.Calls = append(f.Calls, Call{s, in.Src(), -1, c.CallBase + uint64(int64(in.Imm)), ""})
		case in.Op == abi.OpLdImm64 && s+1 < len(f.Insns):
			if in.Src() == abi.Imm64Func {
				callee := slices.IndexFunc(all, func(g Function) bool { return g.Start == f.Start+s+1+int(in.Imm) })
				if callee < 0 {
					return fmt.Errorf("kernel: slot %d: address of an unknown function", f.Start+s)
				}
				setConstant(f.Insns[s:], all[callee].Addr)
			}
			s++
		}
	}
	if err := f.restoreTailCalls(); err != nil {
		return err
	}
	f.locate(i)
	if err := f.restoreProbes(); err != nil {
		return err
	}
	f.Return = f.returnTarget()
	return nil
}

// tailCallHelper is the helper number that a tail call has in the dump.
const tailCallHelper = 12

// setConstant makes of an ldimm64 one of a plain constant.
func setConstant(pair []abi.Insn, v uint64) {
	pair[0].Regs = abi.Registers(pair[0].Dst(), abi.Imm64Value)
	pair[0].Imm, pair[1].Imm = int32(v), int32(v>>32)
}

// Bytes within a tail call: the counter's test, and what follows it in an
// indirect one (section 7.4).
var (
	bytesCounterTest  = []byte{0x48, 0x83, 0x38, 0x21, 0x73}
	bytesLoadIndirect = []byte{0x48, 0x8b, 0x8c, 0xd6}
)

// restoreTailCalls tells direct from indirect tail calls by their code. Both
// test the counter with an instruction that nothing else uses.
func (f *Function) restoreTailCalls() error {
	var slots []int
	for s := 0; s < len(f.Insns); s++ {
		switch f.Insns[s].Op {
		case abi.OpTailCall:
			slots = append(slots, s)
		case abi.OpLdImm64:
			s++
		}
	}
	if slots == nil {
		return nil
	}
	var direct []bool
	for at := 0; at+10 <= len(f.Jited); at++ {
		c := cursor{f.Jited, at}
		if !c.take(bytesCounterTest) {
			continue
		}
		out := c.at + 1 + int(int8(f.Jited[c.at])) // where the test jumps
		c.at++
		direct = append(direct, !c.take(bytesLoadIndirect))
		if direct[len(direct)-1] {
			if err := f.unpoke(c.at, out); err != nil {
				return err
			}
		}
	}
	if len(direct) != len(slots) {
		return fmt.Errorf("%w: %d tail calls, %d in the code", ErrHidden, len(slots), len(direct))
	}
	poke := int32(0)
	for k, s := range slots {
		if direct[k] {
			poke++
			f.Insns[s].Imm = poke
		}
	}
	return nil
}

// unpoke makes a direct tail call look as if its slot of the map were empty:
//
//	bypass: jmp out (5 bytes) … target: nop (5 bytes) out:
//
// Once the slot is filled the first is a nop and the second a jump.
func (f *Function) unpoke(bypass, out int) error {
	target := out - len(bytesNop5)
	if target < bypass+5 || out > len(f.Jited) {
		return fmt.Errorf("%w: a tail call at %d that ends at %d", ErrHidden, bypass, out)
	}
	if c := (cursor{f.Jited, bypass}); c.take(bytesNop5) {
		f.Jited = slices.Clone(f.Jited)
		f.Jited[bypass] = 0xe9
		binary.LittleEndian.PutUint32(f.Jited[bypass+1:], uint32(out-bypass-5))
		copy(f.Jited[target:], bytesNop5)
	}
	return nil
}

// locate finds where the code of each slot begins. The kernel tells, for a
// line of source, where the instruction before it ended.
func (f *Function) locate(i *Info) {
	if i.Lines == nil {
		return
	}
	f.Offsets = make([]int, len(f.Insns))
	for s := range f.Offsets {
		f.Offsets[s] = -1
	}
	for _, l := range i.Lines {
		if s := l.Slot - f.Start; s >= 0 && s < len(f.Insns) && l.Addr-f.Addr < uint64(len(f.Jited)) {
			f.Offsets[s] = int(l.Addr - f.Addr)
		}
	}
	// The first line stands at the start of the function, not of its code.
	if f.Length > 0 && len(f.Offsets) > 0 {
		f.Offsets[0] = f.Length
	}
}

// bytesProbe begins a load that may fault: mov r10, vsyscall page.
var bytesProbe = []byte{0x49, 0xc7, 0xc2, 0x00, 0x00, 0x60, 0xff}

// Modes of loads and stores.
const (
	modeMem     = 0x60
	modeProbe   = 0x20 // PROBE_MEM
	modeProbe32 = 0xa0 // PROBE_MEM32: in the arena
)

// restoreProbes gives loads that may fault, and accesses to an arena, their
// mode back. The dump shows them as plain ones; their code tells.
func (f *Function) restoreProbes() error {
	if f.Offsets == nil && (f.Arena || f.hasProbe()) {
		return fmt.Errorf("%w: accesses that may fault, and no debug information", ErrHidden)
	}
	for s, at := range f.Offsets {
		in := &f.Insns[s]
		class := in.Op & abi.ClassMask
		if class != abi.ClassLDX && class != abi.ClassST && class != abi.ClassSTX || in.Op&abi.ModeMask != modeMem {
			continue
		}
		if at < 0 {
			// An access that the verifier inserted. Those don't fault.
			continue
		}
		switch c := (cursor{f.Jited, at}); {
		case class == abi.ClassLDX && c.take(bytesProbe):
			in.Op = in.Op&^abi.ModeMask | modeProbe
		case f.Arena && indexed(f.Jited[at:]):
			in.Op = in.Op&^abi.ModeMask | modeProbe32
		}
	}
	return nil
}

// indexed says whether an instruction has an index register beyond the first
// eight: r12, which only accesses to an arena use.
func indexed(code []byte) bool {
	const operandSize, rex, rexX = 0x66, 0x40, 0x02
	if len(code) > 0 && code[0] == operandSize {
		code = code[1:]
	}
	return len(code) > 0 && code[0]&0xf0 == rex && code[0]&rexX != 0
}

// hasProbe says whether the code has a load that may fault.
func (f *Function) hasProbe() bool {
	return bytes.Contains(f.Jited, bytesProbe)
}

// returnTarget reads the address of the return thunk behind the first leave
// that a jump follows and no instruction of the program could be: the
// epilogue restores at least the frame right before it.
func (f *Function) returnTarget() uint64 {
	for at := len(f.Jited) - 6; at >= 0; at-- {
		c := cursor{f.Jited, at}
		if c.take([]byte{0xc9, 0xe9}) {
			end := f.Addr + uint64(at) + 6
			t := end + uint64(int64(int32(binary.LittleEndian.Uint32(f.Jited[c.at:]))))
			if t < f.Addr || t >= f.Addr+uint64(len(f.Jited)) {
				return t
			}
		}
	}
	return 0
}
