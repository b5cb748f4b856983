package describe

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Row of x86.txt: the code of one eBPF form under one condition.
type Row struct {
	File     string
	Line     int
	Form     string
	Profiles []string
	Cond     Cond
	Steps    []Step
	Compiler bool // package jit writes the code
}

// A Step is one x86 instruction of a row, or only a label.
type Step struct {
	Line     int
	Label    string // stands before the step
	Guard    Cond
	Enc      *Encoding // nil: a label at the end of the row
	Notation string    // the encoding as written
	Text     string    // what a disassembler must read, with placeholders
	Ops      []Operand
}

// Cond is a conjunction of tests; empty, it always holds.
type Cond []Test

// A Test asks whether one of Any holds, or with Not none of them.
type Test struct {
	Any []string // names such as "dst=r0"
	Not bool
}

// Holds evaluates c on the properties of an instruction.
func (c Cond) Holds(has func(name string) bool) bool {
	for _, t := range c {
		if slices.ContainsFunc(t.Any, has) == t.Not {
			return false
		}
	}
	return true
}

// Names lists the properties that c asks for.
func (c Cond) Names() []string {
	var names []string
	for _, t := range c {
		names = append(names, t.Any...)
	}
	return names
}

// Properties are the names that conditions may use.
var Properties = []string{
	"s32", "u32", "imm<0", "imm=0", "imm8", "dst=r0", "dst=r3", "src=r0", "src=r3",
	"dst=src", "src=r4", "dst=r4", "dst=r10", "src=r10", "imm=1", "off=0",
}

// ProfileNames are the names that a 'for' line may use.
var ProfileNames = []string{"kernel", "kernel.nobmi2", "v5.13", "cage", "cage.nobmi2"}

var columns = regexp.MustCompile(`\s{2,}`)

// ReadRows parses x86.txt. Errors name file and line.
func ReadRows(file string, r io.Reader) ([]Row, error) {
	p := rowParser{file: file}
	s := bufio.NewScanner(r)
	for s.Scan() {
		p.line++
		if err := p.parse(s.Text()); err != nil {
			return nil, fmt.Errorf("%s:%d: %w\n\t%s", file, p.line, err, strings.TrimSpace(s.Text()))
		}
	}
	if len(p.open) > 0 && !p.closed {
		return nil, fmt.Errorf("%s:%d: header without steps", file, p.rows[p.open[0].row].Line)
	}
	return p.rows, s.Err()
}

type rowParser struct {
	file     string
	line     int
	profiles []string
	rows     []Row
	open     []header // the headers whose steps are being read
	closed   bool     // the open headers have a step: the next header starts anew
}

// header is an expanded row with the names that its steps may use.
type header struct {
	row int // index into rows; rows grow while headers are open
	alt int // which alternative of the braces
	let map[string]string
}

func (p *rowParser) parse(text string) error {
	if strings.HasPrefix(strings.TrimSpace(text), "#") || strings.TrimSpace(text) == "" {
		return nil
	}
	if rest, ok := strings.CutPrefix(text, "for "); ok {
		p.profiles = strings.Fields(rest)
		for _, name := range p.profiles {
			if !slices.Contains(ProfileNames, name) {
				return fmt.Errorf("no profile is named %q", name)
			}
		}
		return nil
	}
	if text[0] == ' ' {
		return p.step(strings.TrimSpace(text))
	}
	return p.head(columns.Split(strings.TrimSpace(text), -1))
}

// head parses a one-line row or a header.
func (p *rowParser) head(col []string) error {
	if len(col) < 2 {
		return fmt.Errorf("a row needs a form and a condition")
	}
	if len(p.profiles) == 0 {
		return fmt.Errorf("row before the first 'for' line")
	}
	if p.closed {
		p.open, p.closed = nil, false
	}
	isHeader := len(col) == 2 || (len(col) == 3 && strings.Contains(col[2], "="))
	if !isHeader && len(p.open) > 0 {
		return fmt.Errorf("the header above has no steps")
	}
	forms, err := expand(col[0])
	if err != nil {
		return err
	}
	for alt := range forms {
		pick := func(s string) (string, error) { return choose(s, alt, len(forms)) }
		condText, err := pick(col[1])
		if err != nil {
			return err
		}
		cond, err := parseCond(condText)
		if err != nil {
			return err
		}
		row := Row{File: p.file, Line: p.line, Form: forms[alt], Profiles: p.profiles, Cond: cond}
		switch {
		case isHeader:
			h := header{row: len(p.rows), alt: alt, let: map[string]string{}}
			if len(col) == 3 {
				for _, l := range strings.Fields(col[2]) {
					name, value, ok := strings.Cut(l, "=")
					if !ok {
						return fmt.Errorf("%q is not NAME=operand", l)
					}
					h.let[name] = value
				}
			}
			p.open = append(p.open, h)
		case len(col) == 3 && col[2] == "none":
		case len(col) == 3 && col[2] == "compiler":
			row.Compiler = true
		case len(col) == 4:
			step, err := p.parseStep("", "", col[2], col[3], alt, len(forms), nil)
			if err != nil {
				return err
			}
			row.Steps = []Step{step}
		default:
			return fmt.Errorf("%d columns, want form, condition, encoding, instruction", len(col))
		}
		p.rows = append(p.rows, row)
	}
	return nil
}

var stepStart = regexp.MustCompile(`^(?:\[([^]]*)\]\s*)?(?:([a-z]+):\s*)?(.*)$`)

// step parses an indented line and adds it to the rows of the open headers.
func (p *rowParser) step(text string) error {
	if len(p.open) == 0 {
		return fmt.Errorf("a step without a header")
	}
	p.closed = true
	m := stepStart.FindStringSubmatch(text)
	col := columns.Split(m[3], -1)
	if m[3] == "" {
		col = []string{"", ""}
	}
	if len(col) != 2 {
		return fmt.Errorf("a step has an encoding and an instruction, got %d columns", len(col))
	}
	alts := 0
	for _, h := range p.open {
		alts = max(alts, h.alt+1)
	}
	for _, h := range p.open {
		step, err := p.parseStep(m[1], m[2], col[0], col[1], h.alt, alts, h.let)
		if err != nil {
			return err
		}
		row := &p.rows[h.row]
		row.Steps = append(row.Steps, step)
	}
	return nil
}

var letWord = regexp.MustCompile(`[A-Za-z0-9]+`)

func (p *rowParser) parseStep(guard, label, enc, text string, alt, alts int, let map[string]string) (Step, error) {
	step := Step{Line: p.line, Label: label}
	for _, s := range []*string{&guard, &enc, &text} {
		var err error
		if *s, err = choose(*s, alt, alts); err != nil {
			return step, err
		}
	}
	text = letWord.ReplaceAllStringFunc(text, func(w string) string {
		if v, ok := let[w]; ok {
			return v
		}
		return w
	})
	text = fixedSubregisters(text)
	var err error
	if step.Guard, err = parseCond(guard); err != nil {
		return step, err
	}
	if enc == "" {
		return step, nil
	}
	step.Text, step.Notation = text, enc
	if step.Ops, err = parseOperands(text); err != nil {
		return step, err
	}
	step.Enc, err = parseEncoding(enc, step.Ops)
	return step, err
}

// fixedSubregisters turns names that a NAME=operand has put in, such as
// "r11.d" or "r10.d", into the register's own name.
func fixedSubregisters(text string) string {
	return regexp.MustCompile(`\b(r\d+)\.([dwb])\b`).ReplaceAllString(text, "$1$2")
}

// parseCond parses "imm8,dst=r0/r3,dst!=src"; "-" and "" are empty.
func parseCond(text string) (Cond, error) {
	if text == "-" || text == "" {
		return nil, nil
	}
	var c Cond
	for t := range strings.SplitSeq(text, ",") {
		not := strings.Contains(t, "!=")
		t = strings.Replace(t, "!=", "=", 1)
		var any []string
		if lhs, rhs, ok := strings.Cut(t, "="); ok {
			for v := range strings.SplitSeq(rhs, "/") {
				any = append(any, lhs+"="+v)
			}
		} else {
			any = []string{t}
		}
		for _, name := range any {
			if !slices.Contains(Properties, name) {
				return nil, fmt.Errorf("no property is named %q", name)
			}
		}
		c = append(c, Test{Any: any, Not: not})
	}
	return c, nil
}

var braces = regexp.MustCompile(`\{([^{}]*\|[^{}]*)\}`)

// expand returns the alternatives of a form, which may have one pair of braces.
func expand(s string) ([]string, error) {
	m := braces.FindStringSubmatchIndex(s)
	if m == nil {
		return []string{s}, nil
	}
	var all []string
	for a := range strings.SplitSeq(s[m[2]:m[3]], "|") {
		rest, err := expand(s[m[1]:])
		if err != nil {
			return nil, err
		}
		if len(rest) > 1 {
			return nil, fmt.Errorf("a form may have one pair of braces")
		}
		all = append(all, s[:m[0]]+a+rest[0])
	}
	return all, nil
}

// choose replaces every brace of s by its alternative number alt of n.
func choose(s string, alt, n int) (string, error) {
	var err error
	s = braces.ReplaceAllStringFunc(s, func(b string) string {
		alts := strings.Split(b[1:len(b)-1], "|")
		if len(alts) != n {
			err = fmt.Errorf("%s has %d alternatives, the form has %d", b, len(alts), n)
			return b
		}
		return alts[alt]
	})
	return s, err
}

// parseNumber parses a decimal or hexadecimal constant of 32 bits.
func parseNumber(s string) (int64, bool) {
	v, err := strconv.ParseInt(s, 0, 64)
	if err != nil || v < -1<<31 || v > 1<<32-1 {
		return 0, false
	}
	return v, true
}
