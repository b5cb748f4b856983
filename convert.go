package bpfjit

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// The border to cilium/ebpf. Its Instruction is one step away from the wire:
// the opcode has parts of the offset and of the immediate folded in, jumps and
// calls may name their target, and a load of a map names the map. Its own
// Marshal drops fields that it does not know (an offset of an arithmetic
// instruction, for one), refuses helper calls off Linux and changes its
// receiver. So each instruction is taken apart here, and whatever has no place
// in a slot is an error instead of being lost.

// convertError is a CompileError in the making: it knows the slot, but not
// the program.
type convertError struct {
	slot  int
	field string
	ins   bpf.Insn
	line  Line
	err   error
}

func (e *convertError) Error() string { return fmt.Sprintf("instruction %d: %v", e.slot, e.err) }
func (e *convertError) Unwrap() error { return e.err }

// convert brings cilium's instructions into slots. References between
// instructions are resolved, those to maps are collected. The error is a
// *convertError.
func convert(insns asm.Instructions) (*Source, error) {
	c := converter{symbols: make(map[string]int)}
	for i := range insns {
		if err := c.label(&insns[i]); err != nil {
			return nil, err
		}
		c.slots += int(insns[i].Width())
	}
	c.insns = make([]bpf.Insn, 0, c.slots)
	for i := range insns {
		if err := c.instruction(&insns[i]); err != nil {
			return nil, err
		}
	}
	return &Source{
		Program: &bpf.Program{Insns: c.insns}, Maps: c.maps,
		funcs: c.functions(), lines: c.lines,
	}, nil
}

type converter struct {
	insns   []bpf.Insn
	maps    []MapRef
	lines   lineTable
	current *asm.Instruction
	symbols map[string]int // slots by symbol
	slots   int            // counted so far by label
}

// fail reports what is wrong with the current instruction.
func (c *converter) fail(field string, err error) error {
	slot, ins := len(c.insns), c.current
	return &convertError{slot: slot, field: field, line: c.lines.at(slot), err: err, ins: bpf.Insn{
		Op: uint8(ins.OpCode), Regs: abi.Registers(uint8(ins.Dst), uint8(ins.Src)), Off: ins.Offset, Imm: int32(ins.Constant),
	}}
}

// label notes where the symbol of an instruction is.
func (c *converter) label(ins *asm.Instruction) error {
	name := ins.Symbol()
	if name == "" {
		return nil
	}
	if first, ok := c.symbols[name]; ok {
		return &convertError{slot: c.slots, field: "symbol",
			err: fmt.Errorf("symbol %q is already that of instruction %d", name, first)}
	}
	c.symbols[name] = c.slots
	return nil
}

// instruction appends the slots of ins.
func (c *converter) instruction(ins *asm.Instruction) error {
	slot := len(c.insns)
	c.current = ins
	switch src := ins.Source(); {
	case src != nil:
		c.lines.add(slot, src)
	case ins.Symbol() != "":
		c.lines = append(c.lines, lineEntry{slot: slot}) // the line before is another function's
	}
	if ins.Dst > 15 {
		return c.fail("dst", fmt.Errorf("no register %d: %w", ins.Dst, ErrRange))
	}
	if ins.Src > 15 {
		return c.fail("src", fmt.Errorf("no register %d: %w", ins.Src, ErrRange))
	}
	op, off, imm, err := c.unfold(ins)
	if err != nil {
		return err
	}
	if op == abi.OpLdImm64 {
		return c.wide(ins, off)
	}
	if err := c.link(ins, op, &off, &imm); err != nil {
		return err
	}
	if imm < math.MinInt32 || imm > math.MaxInt32 {
		return c.fail("imm", fmt.Errorf("constant %d: %w", imm, ErrRange))
	}
	c.insns = append(c.insns, bpf.Insn{
		Op: op, Regs: abi.Registers(uint8(ins.Dst), uint8(ins.Src)), Off: off, Imm: int32(imm),
	})
	return nil
}

// unfold undoes what cilium folds into its opcodes: signed division and
// sign-extending moves, which the wire tells by the offset, and the atomic
// operation, which it tells by the immediate.
func (c *converter) unfold(ins *asm.Instruction) (op uint8, off int16, imm int64, err error) {
	op, off, imm = uint8(ins.OpCode), ins.Offset, ins.Constant
	extra := uint32(ins.OpCode) &^ 0xff
	switch {
	case ins.OpCode == asm.InvalidOpCode:
		return 0, 0, 0, c.fail("opcode", errors.New("invalid opcode"))
	case ins.OpCode.Class() == asm.StXClass && ins.OpCode.Mode() == asm.AtomicMode:
		atomic := int64(ins.OpCode.AtomicOp()) >> 8
		extra &^= uint32(ins.OpCode.AtomicOp())
		// Decoded instructions hold the operation twice, made ones once.
		switch {
		case imm == 0:
			imm = atomic
		case imm&0x1ff != atomic:
			return 0, 0, 0, c.fail("imm", fmt.Errorf("operation %#x, but %#x in the opcode", imm, atomic))
		}
	case ins.OpCode.Class().IsALU() && extra != 0:
		fold, ok := map[asm.ALUOp]int16{
			asm.SDiv: 1, asm.SMod: 1, asm.MovSX8: 8, asm.MovSX16: 16, asm.MovSX32: 32,
		}[ins.OpCode.ALUOp()]
		if ok && off != 0 {
			return 0, 0, 0, c.fail("off", fmt.Errorf("offset %d, but %d by the opcode", off, fold))
		}
		if ok {
			off, extra = fold, 0
		}
	}
	if extra != 0 {
		return 0, 0, 0, c.fail("opcode", fmt.Errorf("no opcode %#x", uint32(ins.OpCode)))
	}
	return op, off, imm, nil
}

// wide appends the two slots of a 64-bit load.
func (c *converter) wide(ins *asm.Instruction, off int16) error {
	slot, ref, value := len(c.insns), ins.Reference(), uint64(ins.Constant)
	switch {
	case ins.Map() != nil:
		return c.fail("imm", fmt.Errorf("refers to a map of the kernel: %w", ErrUnsupported))
	case ins.IsLoadFromMap() && ref == "":
		// Of .kconfig, cilium keeps to itself what it is about.
		return c.fail("imm", fmt.Errorf("refers to no map of the object, but to a file descriptor or to .kconfig: %w", ErrUnsupported))
	case ins.IsLoadFromMap():
		value := ins.Src == asm.PseudoMapValue
		r := MapRef{Slot: slot, Name: ref, Value: value}
		if value {
			r.Offset = uint32(uint64(ins.Constant) >> 32)
		}
		c.maps = append(c.maps, r)
	case ins.IsLoadOfFunctionPointer() && ref != "" && ins.Constant == -1:
		dist, err := c.distance(ref)
		if err != nil {
			return err
		}
		value = uint64(uint32(dist))
	case ref != "":
		return c.fail("imm", fmt.Errorf("refers to %q of a kernel: %w", ref, ErrUnsupported))
	}
	c.insns = append(c.insns,
		bpf.Insn{Op: abi.OpLdImm64, Regs: abi.Registers(uint8(ins.Dst), uint8(ins.Src)), Off: off, Imm: int32(uint32(value))},
		bpf.Insn{Imm: int32(uint32(value >> 32))})
	return nil
}

// link resolves the target of a call or a jump that names it. As cilium does,
// it takes a name as a target only where the distance is -1.
func (c *converter) link(ins *asm.Instruction, op uint8, off *int16, imm *int64) error {
	ref := ins.Reference()
	switch {
	case op == abi.OpCall && ins.Src == asm.PseudoKfuncCall:
		return c.fail("src", fmt.Errorf("calls the kernel's function %q: %w", ref, ErrUnsupported))
	case op == abi.OpCall && ins.Src == abi.CallHelper && uint64(*imm)>>28 != 0 && *imm > 0:
		return c.fail("imm", fmt.Errorf("calls a helper of another platform: %w", ErrUnsupported))
	case ref == "":
		return nil
	case op == abi.OpCall && ins.Src == asm.PseudoCall && *imm == -1,
		op == abi.OpGotol && *imm == -1:
		dist, err := c.distance(ref)
		*imm = int64(dist)
		return err
	case ins.OpCode.Class().IsJump() && op != abi.OpCall && *off == -1:
		dist, err := c.distance(ref)
		if err != nil {
			return err
		}
		if int(int16(dist)) != dist {
			return c.fail("off", fmt.Errorf("%q is %d instructions away: %w", ref, dist, ErrRange))
		}
		*off = int16(dist)
	}
	return nil
}

// distance returns how far the target of the next instruction is, counted
// from the slot behind it.
func (c *converter) distance(target string) (int, error) {
	slot, ok := c.symbols[target]
	if !ok {
		return 0, c.fail("imm", fmt.Errorf("%q isn't part of the program: %w", target, ErrUnsupported))
	}
	return slot - len(c.insns) - 1, nil
}

// functions returns, of all symbols, the names of functions by their first
// slot, fit to be printed. The others are labels.
func (c *converter) functions() map[int]string {
	entry := map[int]bool{0: true}
	for i := 0; i < len(c.insns); i++ {
		switch in := c.insns[i]; {
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal:
			entry[i+1+int(in.Imm)] = true
		case in.Op == abi.OpLdImm64 && in.Src() == abi.Imm64Func:
			entry[i+1+int(in.Imm)] = true
			i++
		case in.Op == abi.OpLdImm64:
			i++
		}
	}
	funcs := make(map[int]string)
	for name, slot := range c.symbols {
		if entry[slot] {
			funcs[slot] = printable.Name(name)
		}
	}
	return funcs
}
