package bpf

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// Parse reads instructions as List writes them, one a line. What follows ";"
// is a comment; a slot number such as "12:" in front and the slot in angle
// brackets behind a jump are passed over, blank lines too. A 64-bit constant
// is one line and makes two slots. Constants may also be written in hex.
//
// Text reads back as the same instruction, but for two internal ones: the
// zero extension of a translated program reads as the move that it looks
// like, and slots that are no instructions don't read at all.
//
// The error names the line.
func Parse(text string) ([]Insn, error) {
	var insns []Insn
	for n, line := range strings.Split(text, "\n") {
		s, _, _ := strings.Cut(line, ";")
		s = strings.TrimSpace(s)
		if label, rest, ok := strings.Cut(s, ":"); ok {
			if _, err := strconv.ParseUint(label, 10, 32); err == nil {
				s = strings.TrimSpace(rest)
			}
		}
		if at := strings.LastIndex(s, " <"); at >= 0 && strings.HasSuffix(s, ">") {
			s = s[:at]
		}
		if s == "" {
			continue
		}
		more, ok := parseInsn(s)
		if !ok {
			return nil, fmt.Errorf("line %d: %q is no instruction", n+1, s)
		}
		insns = append(insns, more...)
	}
	return insns, nil
}

// template is a form's text, taken apart: literal text, then a token, and so
// on. Text that a token doesn't follow ends with an empty token.
type template struct {
	form  tables.Form
	parts []templatePart
}

type templatePart struct{ literal, token string }

var templates = sync.OnceValue(func() []template {
	var list []template
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if f == tables.FormLdSecond {
			continue
		}
		t := template{form: f}
		for rest := tables.Forms[f].Text; rest != ""; {
			literal, tail, _ := strings.Cut(rest, "{")
			token, after, _ := strings.Cut(tail, "}")
			t.parts = append(t.parts, templatePart{literal, token})
			rest = after
		}
		list = append(list, t)
	}
	return list
})

// parseInsn returns the slots of one instruction.
func parseInsn(s string) ([]Insn, bool) {
	for _, t := range templates() {
		if insns, ok := t.match(s); ok {
			return insns, true
		}
	}
	return nil, false
}

// match reads s by the template.
func (t *template) match(s string) ([]Insn, bool) {
	f := &tables.Forms[t.form]
	insn := Insn{Op: f.Op, Regs: abi.Registers(uint8(f.Dst.Value), uint8(f.Src.Value)), Off: int16(f.Off.Value), Imm: f.Imm.Value}
	var second Insn
	seen := map[string]int64{}
	for _, p := range t.parts {
		rest, ok := strings.CutPrefix(s, p.literal)
		if !ok {
			return nil, false
		}
		if s = rest; p.token == "" {
			continue
		}
		v, size, ok := t.value(p.token, s)
		if old, again := seen[p.token]; !ok || again && old != v {
			return nil, false
		}
		seen[p.token] = v
		s = s[size:]
		switch p.token {
		case "dst", "wdst":
			insn.Regs = abi.Registers(uint8(v), insn.Src())
		case "src", "wsrc":
			insn.Regs = abi.Registers(insn.Dst(), uint8(v))
		case "off":
			insn.Off = int16(v)
		case "imm":
			insn.Imm = int32(v)
		case "next":
			second.Imm = int32(v)
		case "imm64":
			insn.Imm, second.Imm = int32(v), int32(v>>32)
		}
	}
	if s != "" {
		return nil, false
	}
	if insn.Op == abi.OpLdImm64 {
		return []Insn{insn, second}, true
	}
	return []Insn{insn}, true
}

// value reads what a token stands for at the beginning of s, and returns how
// long it is.
func (t *template) value(token, s string) (v int64, size int, ok bool) {
	f := &tables.Forms[t.form]
	switch token {
	case "dst", "src":
		return register(s, 'r')
	case "wdst", "wsrc":
		return register(s, 'w')
	case "off":
		if f.Off.Use == tables.UseDisplacement {
			return displacement(s)
		}
		return integer(s, 16, f.Off.Use == tables.UseDistance)
	case "imm64":
		return integer(s, 64, false)
	}
	return integer(s, 32, token == "imm" && f.Imm.Use == tables.UseDistance)
}

// register reads r3 or w3.
func register(s string, kind byte) (v int64, size int, ok bool) {
	for size = 1; size < len(s) && size < 3 && '0' <= s[size] && s[size] <= '9'; size++ {
		v = v*10 + int64(s[size]-'0')
	}
	return v, size, s != "" && s[0] == kind && size > 1 && v < 16
}

// displacement reads " + 4" or " - 8".
func displacement(s string) (v int64, size int, ok bool) {
	if len(s) < 4 || s[0] != ' ' || s[2] != ' ' || s[1] != '+' && s[1] != '-' {
		return 0, 0, false
	}
	v, size, ok = integer(s[3:], 17, false)
	if s[1] == '-' {
		v = -v
	}
	return v, size + 3, ok && int64(int16(v)) == v
}

// integer reads a number, signed or unsigned, of at most the given bits. If
// it must have a sign it can't be unsigned.
func integer(s string, bits uint, sign bool) (v int64, size int, ok bool) {
	if s == "" || sign && s[0] != '+' && s[0] != '-' {
		return 0, 0, false
	}
	negative := s[0] == '-'
	if negative || sign {
		size = 1
	}
	start := size
	for size < len(s) && strings.IndexByte("0123456789abcdefx", s[size]) >= 0 {
		size++
	}
	u, err := strconv.ParseUint(s[start:size], 0, 64)
	if err != nil {
		return 0, 0, false
	}
	v = int64(u)
	if negative {
		v = -v
	}
	limit := uint64(1)<<(bits-1) - 1
	switch {
	case negative:
		limit++
	case !sign:
		limit = limit<<1 | 1
	}
	return v, size, u <= limit
}
