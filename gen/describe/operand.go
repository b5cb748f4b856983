package describe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// OperandKind says what an operand of an x86 instruction is.
type OperandKind uint8

const (
	Register OperandKind = iota
	Memory
	Immediate
	Distance // of a jump: Name is a label, or "target"
)

// An Operand as the last column of x86.txt writes it.
type Operand struct {
	Kind OperandKind
	Reg  Reg    // the register, or the base of a memory operand
	Size int    // bits of a register
	Idx  *Reg   // index of a memory operand
	GS   bool   // memory relative to gs, with 32 bits of displacement alone
	Off  bool   // the displacement is the instruction's offset
	Name string // "imm", a {parameter} or a label; empty: Const
	// Const is the constant of an immediate or a displacement; HasDisp says
	// that a memory operand has one.
	Const   int64
	HasDisp bool
}

// A Reg is a register of the instruction, or a fixed x86 register.
type Reg struct {
	Field Role
	Num   uint8 // x86 number, for Fixed
}

// A Role of an eBPF instruction that names a register.
type Role uint8

const (
	Fixed Role = iota
	Dst
	Src
)

var names64 = []string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}
var names32 = []string{"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"}
var names16 = []string{"ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w", "r14w", "r15w"}
var names8 = []string{"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b", "r15b"}

var nameTables = map[int][]string{64: names64, 32: names32, 16: names16, 8: names8}

// RegisterName returns the Intel name of an x86 register.
func RegisterName(num uint8, bits int) string { return nameTables[bits][num] }

func parseRegister(s string) (Reg, int, bool) {
	for i, f := range []string{"dst", "src"} {
		if rest, ok := strings.CutPrefix(s, f); ok {
			if bits, ok := map[string]int{"": 64, ".d": 32, ".w": 16, ".b": 8}[rest]; ok {
				return Reg{Field: Role(i + 1)}, bits, true
			}
		}
	}
	for bits, names := range nameTables {
		if n := slices.Index(names, s); n >= 0 {
			return Reg{Num: uint8(n)}, bits, true
		}
	}
	return Reg{}, 0, false
}

var (
	mnemonic  = regexp.MustCompile(`^(?:lock )?[a-z0-9]+ ?`)
	memory    = regexp.MustCompile(`^(?:(?:byte|word|dword|qword) )?ptr (gs:)?\[(.*)\]$`)
	parameter = regexp.MustCompile(`^\{([a-z]+)\}$`)
)

// parseOperands parses the operands of an instruction in Intel spelling.
func parseOperands(text string) ([]Operand, error) {
	m := mnemonic.FindString(text)
	rest := text[len(m):]
	if rest == "" {
		return nil, nil
	}
	jump := m[0] == 'j'
	var ops []Operand
	for s := range strings.SplitSeq(rest, ", ") {
		op, err := parseOperand(s, jump)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

func parseOperand(s string, jump bool) (Operand, error) {
	if jump || s == "target" {
		return Operand{Kind: Distance, Name: s}, nil
	}
	if r, bits, ok := parseRegister(s); ok {
		return Operand{Kind: Register, Reg: r, Size: bits}, nil
	}
	if m := memory.FindStringSubmatch(s); m != nil {
		return parseMemory(m[1] != "", m[2])
	}
	if m := parameter.FindStringSubmatch(s); m != nil {
		return Operand{Kind: Immediate, Name: m[1]}, nil
	}
	if s == "imm" {
		return Operand{Kind: Immediate, Name: "imm"}, nil
	}
	if v, ok := parseNumber(s); ok {
		return Operand{Kind: Immediate, Const: v}, nil
	}
	return Operand{}, fmt.Errorf("operand %q is not understood", s)
}

// parseMemory parses what stands between the brackets.
func parseMemory(gs bool, s string) (Operand, error) {
	op := Operand{Kind: Memory, GS: gs}
	for i, part := range strings.Split(s, "+") {
		r, bits, isReg := parseRegister(part)
		v, isNum := parseNumber(part)
		m := parameter.FindStringSubmatch(part)
		switch {
		case isReg && bits == 64 && i == 0:
			op.Reg = r
		case isReg && bits == 64 && i == 1:
			op.Idx = &r
		case part == "off":
			op.Off, op.HasDisp = true, true
		case m != nil:
			op.Name, op.HasDisp = m[1], true
		case isNum:
			op.Const, op.HasDisp = int64(int32(v)), true
		default:
			return op, fmt.Errorf("%q in a memory operand is not understood", part)
		}
	}
	return op, nil
}
