package bpf

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// checker checks programs instruction by instruction, and names the first
// that is at fault.
type checker struct {
	p       *Program
	dialect Dialect
}

// exact is Check for a program of the right size.
func (c *checker) exact() error {
	for slot := range c.p.Insns {
		if err := c.slot(slot); err != nil {
			return err
		}
	}
	funcs := []Func{{Start: 0, End: len(c.p.Insns)}}
	if c.dialect == Source {
		var err error
		if funcs, err = Functions(c.p); err != nil {
			return err
		}
	}
	for _, f := range funcs {
		if err := c.function(f); err != nil {
			return err
		}
	}
	n := nesting{program: c.p, funcs: funcs, deep: make([]int8, len(funcs))}
	return n.check()
}

// second reports whether a slot is the second half of a 64-bit constant, if
// no slot in front of it is at fault.
func (c *checker) second(slot int) bool {
	return slot > 0 && c.p.Insns[slot-1].Op == abi.OpLdImm64
}

// support says whether the dialect has a form.
func (c *checker) support(f *tables.FormInfo) tables.Support {
	if c.dialect == Translated {
		return f.Translated
	}
	return f.Source
}

// fail makes an error about a slot.
func (c *checker) fail(slot int, field, format string, args ...any) *Error {
	return &Error{Slot: slot, Insn: c.p.Insns[slot], Field: field, Reason: fmt.Sprintf(format, args...)}
}

// slot checks an instruction by itself.
func (c *checker) slot(slot int) error {
	insn := c.p.Insns[slot]
	if c.second(slot) && insn.Op != 0 {
		return c.fail(slot, "opcode", "is %#02x, must be 0x00: the second half of the 64-bit constant", insn.Op)
	}
	f, ok := tables.FormOf(insn.Op, insn.Regs, insn.Off, insn.Imm)
	form := &tables.Forms[f]
	if !ok || c.support(form) == tables.Never {
		return c.mismatch(slot, f)
	}
	switch c.support(form) {
	case tables.Later:
		e := c.fail(slot, "opcode", "is %s, which is not supported", form.Name)
		e.Err = ErrUnsupported
		return e
	case tables.Loader:
		return c.fail(slot, "src", "makes it %s, a reference that no loader has resolved", form.Name)
	}
	if err := c.pairing(slot, f); err != nil {
		return err
	}
	if c.dialect == Source && form.Off.Use == tables.UseTranslated && insn.Off != 0 {
		return c.fail(slot, "off", "is %d, must be 0", insn.Off)
	}
	if err := c.register(slot, "dst", insn.Dst(), form.Dst); err != nil {
		return err
	}
	if err := c.register(slot, "src", insn.Src(), form.Src); err != nil {
		return err
	}
	if c.p.Flag(slot)&Probe != 0 && (form.Src.Use != tables.UseAddress || insn.Op&abi.ClassMask != abi.ClassLDX) {
		return c.fail(slot, "opcode", "is %s, but the slot is marked as a fault-tolerant load", form.Name)
	}
	return nil
}

// pairing keeps the halves of 64-bit constants together.
func (c *checker) pairing(slot int, f tables.Form) error {
	insns := c.p.Insns
	if f == tables.FormLdSecond {
		if !c.second(slot) {
			return c.fail(slot, "opcode", "is the second half of a 64-bit constant without the first")
		}
		if c.dialect == Source && insns[slot-1].Src() == abi.Imm64Func && insns[slot].Imm != 0 {
			return c.fail(slot, "imm", "is %d, must be 0", insns[slot].Imm)
		}
		return nil
	}
	if insns[slot].Op == abi.OpLdImm64 && slot+1 == len(insns) {
		return c.fail(slot, "", "the second half of the 64-bit constant is missing")
	}
	return nil
}

// register checks one of the register fields.
func (c *checker) register(slot int, field string, r uint8, o tables.Operand) error {
	if o.Fixed() {
		return nil
	}
	switch {
	case r > abi.AX:
		return c.fail(slot, field, "is r%d, which does not exist", r)
	case r == abi.AX && c.dialect == Source:
		return c.fail(slot, field, "is r%d, which is internal", r)
	case r == abi.R10 && o.Writes():
		return c.fail(slot, field, "is r10, which is read-only")
	case r == abi.R10 && o.Use == tables.UseAddress && c.dialect == Source:
		insn := c.p.Insns[slot]
		size := abi.AccessSize(insn.Op)
		if int(insn.Off) < -abi.FrameBytes || int(insn.Off)+size > 0 {
			return c.fail(slot, "off", "is %d: %d bytes there are outside of the frame of %d bytes below r10", insn.Off, size, abi.FrameBytes)
		}
	}
	return nil
}

// mismatch says why an instruction is none of the dialect: what it differs in
// from the form that comes closest. is is the form that it has elsewhere, if
// any.
func (c *checker) mismatch(slot int, is tables.Form) error {
	insn := c.p.Insns[slot]
	fields := [4]int32{int32(insn.Dst()), int32(insn.Src()), int32(insn.Off), insn.Imm}
	names := [4]string{"dst", "src", "off", "imm"}
	best, least := -1, 1<<8
	var known *tables.FormInfo
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if form.Op != insn.Op {
			continue
		}
		if known == nil || f == is {
			known = form
		}
		if c.support(form) == tables.Never {
			continue
		}
		// A reserved field is wrong sooner than one that selects.
		first, wrong := -1, 0
		for k, o := range operands(form) {
			if !o.Fixed() || o.Value == fields[k] {
				continue
			}
			if wrong++; o.Use == tables.UseNumber {
				wrong++
			}
			if first < 0 {
				first = k
			}
		}
		if wrong < least {
			best, least = first, wrong
		}
	}
	switch {
	case known == nil:
		return c.fail(slot, "opcode", "is %#02x, which is no instruction", insn.Op)
	case best < 0:
		return c.fail(slot, "opcode", "is %s, which is no instruction of a %v program", known.Name, c.dialect)
	}
	return c.fail(slot, names[best], "is %d, must be %s", fields[best], c.choices(insn.Op, best))
}

// choices lists the values that field k can have in the forms of an opcode.
func (c *checker) choices(op uint8, k int) string {
	var list []string
	seen := map[int32]bool{}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if form.Op != op || c.support(form) != tables.Allowed {
			continue
		}
		if v := operands(form)[k].Value; !seen[v] {
			seen[v] = true
			list = append(list, strconv.Itoa(int(v)))
		}
	}
	if len(list) == 1 {
		return list[0]
	}
	return "one of " + strings.Join(list, ", ")
}

func operands(f *tables.FormInfo) [4]tables.Operand {
	return [4]tables.Operand{f.Dst, f.Src, f.Off, f.Imm}
}
