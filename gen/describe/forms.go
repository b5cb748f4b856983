package describe

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// Error is a line that describe rejects.
type Error struct {
	File   string
	Line   int
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// Form is one line of bpf.txt; its legend says what the columns mean.
type Form struct {
	Line   int // in bpf.txt
	Number int // from 1, in the order of the file
	Op     uint8
	Name   string // such as "alu64.add.k"

	Dst, Src, Off, Imm Field

	Flow       string // "-", "branch", "jump", "call", "exit"
	Group      string // conformance group, or "-"
	Source     string // "yes", "no", "later", "loader"
	Translated string // the same
	Blind      string // blinding rule, or "-"
	Text       string // template of the listing
}

// Field is what a field of an instruction holds.
type Field struct {
	// Use is the column as the legend lists it: "-", "r", "w", "rw", "a",
	// "m", "j", "k", "t", or "number" for a field that must hold Value.
	Use   string
	Value int32
}

// Fixed reports whether the field can hold one value only.
func (f Field) Fixed() bool { return f.Use == "-" || f.Use == "number" }

// Fields returns the four fields in the order of the columns.
func (f *Form) Fields() [4]Field { return [4]Field{f.Dst, f.Src, f.Off, f.Imm} }

// fieldNames are the columns of Fields.
var fieldNames = [4]string{"dst", "src", "off", "imm"}

// position is where each field of Fields begins in a slot read as a
// little-endian word, and how many bits it has.
var position = [4]struct{ shift, bits uint }{{8, 4}, {12, 4}, {16, 16}, {32, 32}}

// Match returns what a slot, read as a little-endian word of 64 bits, looks
// like where it has this form: slot&mask == value.
func (f *Form) Match() (mask, value uint64) {
	mask, value = 0xff, uint64(f.Op)
	for i, fd := range f.Fields() {
		if !fd.Fixed() {
			continue
		}
		ones := uint64(1)<<position[i].bits - 1
		mask |= ones << position[i].shift
		value |= uint64(int64(fd.Value)) & ones << position[i].shift
	}
	return mask, value
}

// GoName returns the name of the form's constant, such as "FormAlu64AddK".
func (f *Form) GoName() string {
	s := "Form"
	for _, part := range strings.FieldsFunc(f.Name, func(r rune) bool { return r == '.' || r == '_' }) {
		s += strings.ToUpper(part[:1]) + part[1:]
	}
	return s
}

// uses are the permitted contents of the field columns.
var uses = map[string]string{
	"dst": "- r w rw a number",
	"src": "- r w rw a number",
	"off": "- m j k t number",
	"imm": "- j k number",
}

// words are the permitted contents of the columns that hold a word.
var words = map[string]string{
	"flow":   "- branch jump call exit",
	"group":  "- base32 base64 divmul32 divmul64 atomic32 atomic64 packet",
	"source": "yes no later loader",
	"transl": "yes no later loader",
	"blind":  "- alu32 alu64 mov32 mov64 jmp32 jmp64 imm64 second store",
}

var (
	nameRE  = regexp.MustCompile(`^[a-z][a-z0-9]*([._][a-z0-9]+)*$`)
	tokenRE = regexp.MustCompile(`\{[^}]*\}?|\}`)
)

// tokens are the placeholders of the text column.
var tokens = map[string]bool{
	"{dst}": true, "{src}": true, "{wdst}": true, "{wsrc}": true,
	"{imm}": true, "{imm64}": true, "{next}": true, "{off}": true,
}

// ParseForms reads bpf.txt. file is the name for errors, which are of type
// *Error.
func ParseForms(file string, r io.Reader) ([]*Form, error) {
	var forms []*Form
	s := bufio.NewScanner(r)
	for line := 1; s.Scan(); line++ {
		t := strings.TrimSpace(s.Text())
		if t == "" || t[0] == '#' {
			continue
		}
		f, err := parseForm(t)
		if err == nil {
			f.Line, f.Number = line, len(forms)+1
			err = fits(f, forms)
		}
		if err != nil {
			return nil, &Error{file, line, err.Error()}
		}
		forms = append(forms, f)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if err := selecting(forms); err != nil {
		err.File = file
		return nil, err
	}
	return forms, nil
}

// parseForm reads one line.
func parseForm(line string) (*Form, error) {
	const columns = 12
	var col []string
	rest := line
	for len(col) < columns-1 {
		word, tail, _ := strings.Cut(rest, " ")
		col = append(col, word)
		rest = strings.TrimLeft(tail, " ")
	}
	if rest == "" {
		return nil, fmt.Errorf("want %d columns: op form dst src off imm flow group source transl blind text", columns)
	}
	op, err := strconv.ParseUint(col[0], 16, 8)
	if err != nil || len(col[0]) != 2 {
		return nil, fmt.Errorf("opcode %q isn't two hex digits", col[0])
	}
	f := &Form{Op: uint8(op), Name: col[1], Text: rest}
	if !nameRE.MatchString(f.Name) {
		return nil, fmt.Errorf("%q isn't a name", f.Name)
	}
	for i, fd := range []*Field{&f.Dst, &f.Src, &f.Off, &f.Imm} {
		if *fd, err = parseField(i, col[2+i]); err != nil {
			return nil, err
		}
	}
	for i, w := range []struct {
		name string
		dst  *string
	}{{"flow", &f.Flow}, {"group", &f.Group}, {"source", &f.Source}, {"transl", &f.Translated}, {"blind", &f.Blind}} {
		*w.dst = col[6+i]
		if !hasWord(words[w.name], *w.dst) {
			return nil, fmt.Errorf("%s is %q, not one of %s", w.name, *w.dst, words[w.name])
		}
	}
	return f, checkForm(f)
}

// parseField reads one of the columns dst, src, off, imm.
func parseField(i int, s string) (Field, error) {
	name := fieldNames[i]
	if s != "number" && hasWord(uses[name], s) {
		return Field{Use: s}, nil
	}
	v, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		return Field{}, fmt.Errorf("%s is %q, not one of %s", name, s, uses[name])
	}
	bits := position[i].bits
	lo, hi := int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
	if bits == 4 {
		lo, hi = 0, 15
	}
	if v < lo || v > hi {
		return Field{}, fmt.Errorf("%s is %s, which %d bits don't hold", name, s, bits)
	}
	return Field{Use: "number", Value: int32(v)}, nil
}

// checkForm looks for columns that contradict each other.
func checkForm(f *Form) error {
	for _, t := range tokenRE.FindAllString(f.Text, -1) {
		if !tokens[t] {
			return fmt.Errorf("text has %s, which isn't a placeholder", t)
		}
	}
	jumps := 0
	for _, fd := range f.Fields() {
		if fd.Use == "j" {
			jumps++
		}
	}
	addr := 0
	for _, fd := range []Field{f.Dst, f.Src} {
		if fd.Use == "a" {
			addr++
		}
	}
	class := f.Op & 7
	switch {
	case jumps > 1:
		return fmt.Errorf("two fields hold a distance")
	case jumps == 0 && (f.Flow == "branch" || f.Flow == "jump"):
		return fmt.Errorf("a %s needs a distance", f.Flow)
	case addr > 1:
		return fmt.Errorf("two registers hold the address")
	case (addr == 1) != (f.Off.Use == "m"):
		return fmt.Errorf("an address needs a displacement in off, and the reverse")
	case f.Blind != "-" && f.Imm.Use != "k":
		return fmt.Errorf("rule %s blinds imm, which holds %q", f.Blind, f.Imm.Use)
	case strings.HasPrefix(f.Blind, "alu") && class != 4 && class != 7,
		strings.HasPrefix(f.Blind, "mov") && class != 4 && class != 7,
		strings.HasPrefix(f.Blind, "jmp") && class != 5 && class != 6,
		f.Blind == "store" && class != 2:
		return fmt.Errorf("rule %s is not for class %d", f.Blind, class)
	}
	return nil
}

// fits compares a form with those before it: a name stands once, and some
// number tells forms of one opcode apart.
func fits(f *Form, before []*Form) error {
	m, v := f.Match()
	for _, g := range before {
		if g.Name == f.Name {
			return fmt.Errorf("%s stands in line %d already", f.Name, g.Line)
		}
		if g.GoName() == f.GoName() {
			return fmt.Errorf("%s and %s of line %d are both %s in Go", f.Name, g.Name, g.Line, f.GoName())
		}
		if gm, gv := g.Match(); (v^gv)&m&gm == 0 {
			return fmt.Errorf("no number tells %s from %s of line %d", f.Name, g.Name, g.Line)
		}
	}
	return nil
}

// selecting sees to it that a field that selects among the forms of its
// opcode says so: it has a number in each of them, never a dash.
func selecting(forms []*Form) *Error {
	for _, f := range forms {
		for i, fd := range f.Fields() {
			if fd.Use != "-" {
				continue
			}
			for _, g := range forms {
				if gd := g.Fields()[i]; g.Op == f.Op && gd.Use == "number" {
					return &Error{Line: f.Line, Reason: fmt.Sprintf(
						"%s is - here, but selects %s in line %d: write 0", fieldNames[i], g.Name, g.Line)}
				}
			}
		}
	}
	return nil
}

func hasWord(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}
