package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/bpfjit/bpfjit/gen/describe"
)

// An Insn is an instance of a form, to prove rows on and for test vectors.
type Insn struct {
	Dst, Src uint8
	Off      int16
	Imm      int32
	High     int32 // imm of the second slot
}

// Boundary values: everything that changes a length, and its neighbours.
var (
	bounds32 = []int32{0, 1, 2, -1, 127, 128, -128, -129, 1<<31 - 1, -1 << 31}
	bounds16 = []int16{0, 1, -1, 127, 128, -128, -129, 1<<15 - 1, -1 << 15}
	shifts   = []int32{0, 1, 2, 31}
)

// parameters are the values that rows are proved with.
var parameters = map[string]int64{"vsyscall": -0xa00000, "limit": 0x800000a00000, "percpu": 0x7fb0e028, "user": 0x10}

// Pieces returns the bytes of each step, made the way the encoder makes them.
func (t *Tables) Pieces(row *Row, in Insn) [][]byte {
	var pieces [][]byte
	for _, st := range row.Steps {
		head := st.Head ^ t.Bits[st.Dst][in.Dst] ^ t.Bits[st.Src][in.Src]
		code := little(int64(head), st.N)
		code = append(code, little(int64(in.Off), st.Disp)...)
		pieces = append(pieces, append(code, little(argument(st.parts[len(st.parts)-1], in), st.Imm)...))
	}
	return pieces
}

// argument returns the value of the immediate, or of the displacement that
// takes its place.
func argument(s *describe.Step, in Insn) int64 {
	op := s.Immediate()
	if op == nil {
		op = s.MemoryOperand()
	}
	if op == nil {
		return 0
	}
	switch op.Name {
	case "imm":
		if s.Enc.Imm == "io" {
			return int64(in.High)<<32 | int64(uint32(in.Imm))
		}
		return int64(in.Imm)
	case "off":
		return int64(in.Off)
	case "":
		return op.Const
	}
	return parameters[op.Name]
}

func little(v int64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// reference encodes a step straight from its notation.
func reference(s *describe.Step, in Insn) []byte {
	if s.Enc.Short != 0 {
		return []byte{s.Enc.Short, 0}
	}
	dst, src := native[in.Dst], native[in.Src]
	wide := in.Off < -128 || in.Off > 127
	code, _ := s.Head(dst, src, s.NeedsRex(dst, src), wide)
	if m := s.MemoryOperand(); m != nil && m.HasDisp {
		switch {
		case m.Off && wide:
			code = append(code, little(int64(in.Off), 4)...)
		case m.Off:
			code = append(code, byte(in.Off))
		case m.Name != "":
			code = append(code, little(parameters[m.Name], 4)...)
		default:
			code = append(code, little(m.Const, s.DispSize())...)
		}
	}
	if s.Immediate() != nil {
		code = append(code, little(argument(s, in), s.Enc.ImmSize())...)
	}
	return code
}

var (
	registerWord = regexp.MustCompile(`\b(dst|src)(\.[dwb])?`)
	numberWord   = regexp.MustCompile(`([ +])(0x[0-9a-f]+|\d+)\b`)
	paramWord    = regexp.MustCompile(`\{([a-z]+)\}`)
)

// expected renders the last column of a row for an instance.
func expected(s *describe.Step, in Insn, dist int) string {
	hex := func(v int64) string {
		if v < 0 && v >= -1<<31 {
			return fmt.Sprintf("-0x%x", -v)
		}
		return fmt.Sprintf("0x%x", uint64(v))
	}
	text := numberWord.ReplaceAllStringFunc(s.Text, func(w string) string {
		m := numberWord.FindStringSubmatch(w)
		var v int64
		fmt.Sscan(m[2], &v)
		return m[1] + hex(v)
	})
	text = registerWord.ReplaceAllStringFunc(text, func(w string) string {
		name, size, _ := strings.Cut(w, ".")
		hw := native[in.Dst]
		if name == "src" {
			hw = native[in.Src]
		}
		return describe.RegisterName(hw, map[string]int{"": 64, "d": 32, "w": 16, "b": 8}[size])
	})
	if s.Enc.Short != 0 {
		sign := "+"
		if dist < 0 {
			sign = ""
		}
		return strings.Fields(text)[0] + " ." + sign + hex(int64(dist))
	}
	// x86asm writes 32 bits of displacement without a sign.
	off := "+" + hex(int64(uint32(in.Off)))
	if in.Off == 0 {
		off = ""
	} else if in.Off < 0 && in.Off >= -128 {
		off = hex(int64(in.Off))
	}
	text = strings.Replace(text, "+off", off, 1)
	imm := argument(s, in)
	switch {
	case strings.Contains(text, "byte ptr"):
		imm = int64(uint8(imm))
	case strings.Contains(text, "word ptr") && s.Enc.Imm == "iw":
		imm = int64(int16(imm))
	}
	text = regexp.MustCompile(`\bimm$`).ReplaceAllString(text, hex(imm))
	return paramWord.ReplaceAllStringFunc(text, func(w string) string { return hex(imm) })
}

// Prove checks every row on every pair of registers and all boundary
// constants: the bytes must be those of the notation, and a disassembler must
// read what the last column says. It returns how many rows that reached.
func (t *Tables) Prove() (int, error) {
	reached := map[int]bool{0: true}
	for _, f := range t.desc.Forms {
		for i, profile := range describe.ProfileNames {
			if t.sameAs(i, []*describe.Form{f}) != "" {
				continue
			}
			if err := t.proveForm(profile, f, reached); err != nil {
				return 0, err
			}
		}
	}
	for _, r := range t.Rows {
		if !reached[r.Number] {
			return 0, fmt.Errorf("%s:%d: row of %s was not proved", r.source.File, r.source.Line, r.source.Form)
		}
	}
	return len(reached), nil
}

func (t *Tables) proveForm(profile string, f *describe.Form, reached map[int]bool) error {
	for in := range instances(f) {
		row, err := t.Row(profile, f, in)
		if err != nil {
			return err
		}
		finder := &t.Finders[profile][f.Op]
		if found := int(t.Index[finder.find(key(f.Op, in))]); found != row.Number && row.Number != 0 {
			return fmt.Errorf("BUG: %s %+v: the finder gives row %d, not %d", f.Name, in, found, row.Number)
		}
		if row.Kind == "None" {
			continue
		}
		reached[row.Number] = true
		if err := proveRow(row, f, in, bytes.Join(t.Pieces(row, in), nil)); err != nil {
			return err
		}
	}
	return nil
}

// proveRow compares the code of an instance with the notation, and reads it.
func proveRow(row *Row, f *describe.Form, in Insn, code []byte) error {
	ends := map[*describe.Step]int{}
	labels := map[string]int{}
	n := 0
	for i := range row.source.Steps {
		s := &row.source.Steps[i]
		if s.Label != "" {
			labels[s.Label] = n
		}
		if row.has(s) {
			n += len(reference(s, in))
			ends[s] = n
		}
	}
	for i := range row.source.Steps {
		s := &row.source.Steps[i]
		if !row.has(s) {
			continue
		}
		want, dist := reference(s, in), 0
		if s.Enc.Short != 0 {
			dist = labels[s.Ops[0].Name] - ends[s]
			want[1] = byte(dist)
		}
		got := code[:min(len(want), len(code))]
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s %+v: % x: %s", row.source.File, s.Line, f.Name, in, got, fmt.Sprintf(format, args...))
		}
		if !bytes.Equal(got, want) {
			return fail("the notation gives % x", want)
		}
		code = code[len(want):]
		inst, err := x86asm.Decode(got, 64)
		if err != nil || inst.Len != len(got) {
			return fail("decoded as %d bytes, error %v", inst.Len, err)
		}
		if got, want := x86asm.IntelSyntax(inst, 0, nil), expected(s, in, dist); got != want {
			return fail("reads %q, want %q", got, want)
		}
	}
	if len(code) != 0 {
		return fmt.Errorf("%s:%d: %s %+v: % x is too much", row.source.File, row.source.Line, f.Name, in, code)
	}
	return nil
}

// has tells whether a step of x86.txt is in the row.
func (r *Row) has(s *describe.Step) bool {
	return slices.ContainsFunc(r.Steps, func(st *Step) bool { return slices.Contains(st.parts, s) })
}

// instances yields the instructions that a form is proved on.
func instances(f *describe.Form) func(yield func(Insn) bool) {
	regs := func(u describe.Field) []uint8 {
		if u.Use == "number" {
			return []uint8{uint8(u.Value)}
		}
		if u.Fixed() || u.Use == "t" || u.Use == "k" {
			return []uint8{0}
		}
		return []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	}
	offs, imms, highs := bounds16, bounds32, []int32{0}
	if f.Off.Fixed() {
		offs = []int16{int16(f.Off.Value)}
	} else if f.Off.Use == "j" {
		offs = []int16{0}
	}
	switch {
	case f.Imm.Fixed():
		imms = []int32{f.Imm.Value}
	case strings.Contains(f.Name, "sh.k"):
		imms = shifts
	case strings.HasPrefix(f.Name, "ld."):
		highs = []int32{0, -1, 1, -1 << 31}
	}
	return func(yield func(Insn) bool) {
		for _, dst := range regs(f.Dst) {
			for _, src := range regs(f.Src) {
				for _, off := range offs {
					for _, imm := range imms {
						for _, high := range highs {
							if !yield(Insn{dst, src, off, imm, high}) {
								return
							}
						}
					}
				}
			}
		}
	}
}
