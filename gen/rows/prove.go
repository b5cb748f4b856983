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

// class returns the class bits of an instruction, REX bits included.
func class(in Insn) uint32 {
	dst, src := native[in.Dst], native[in.Src]
	bits := []bool{
		in.High == in.Imm>>31 && in.Imm < 0, // s32; an imm of 0 or more is u32
		in.High == 0,
		in.Imm < 0, in.Imm == 0, in.Imm >= -128 && in.Imm <= 127,
		in.Dst == 0, in.Dst == 3, in.Src == 0, in.Src == 3, in.Dst == in.Src, in.Src == 4, in.Dst == 4,
		in.Dst == 10, in.Src == 10, in.Imm == 1, in.Off == 0,
		dst >= 8, src >= 8, src >= 4 && src < 8,
	}
	var c uint32
	for i, b := range bits {
		if b {
			c |= 1 << i
		}
	}
	return c
}

// Row finds the row of an instance.
func (t *Tables) Row(profile string, form int, in Insn) *Row {
	w := t.Windows[profile][form]
	return &t.Rows[t.Index[uint32(w.Base)+class(in)>>w.Shift&uint32(w.Mask)]]
}

// Pieces returns the bytes of each step, made the way the encoder makes them.
func (t *Tables) Pieces(row *Row, in Insn) [][]byte {
	var pieces [][]byte
	for i := range int(row.Count) {
		st := &t.Steps[int(row.First)+i]
		v := 0
		if uint32(st.Rex)&(class(in)>>16) != 0 {
			v = 1
		}
		head := st.Head[v] ^ t.Bits[st.Dst[v]][in.Dst] ^ t.Bits[st.Src[v]][in.Src]
		var tail []byte
		if st.Disp != 0 {
			if in.Off >= -128 && in.Off <= 127 {
				tail = append(tail, byte(in.Off))
			} else {
				head ^= 0xc0 << st.Mod[v]
				tail = append(tail, little(int64(in.Off), 4)...)
			}
		}
		tail = append(tail, little(argument(st.source, in), int(st.Imm))...)
		pieces = append(pieces, append(little(int64(head), int(st.Len[v])), tail...))
	}
	for i := range pieces {
		if to := t.Steps[int(row.First)+i].Label; to != noLabel {
			pieces[i][1] = byte(distance(pieces, i, int(to)))
		}
	}
	return pieces
}

// distance returns the bytes from the end of piece i to the start of piece to.
func distance(pieces [][]byte, i, to int) int {
	n := 0
	for k := i + 1; k < to; k++ {
		n += len(pieces[k])
	}
	for k := to; k <= i; k++ {
		n -= len(pieces[k])
	}
	return n
}

// labelled returns the number of the piece that a label stands before.
func (r *Row) labelled(label string) int {
	piece := 0
	for i := range r.source.Steps {
		s := &r.source.Steps[i]
		if s.Label == label {
			return piece
		}
		if r.keep[i] && s.Enc != nil {
			piece++
		}
	}
	panic("BUG: a label that build has resolved")
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
	reached := map[*Row]bool{&t.Rows[0]: true}
	for _, f := range t.desc.Forms {
		for i, profile := range describe.ProfileNames {
			w := t.Windows[profile][f.Number]
			if slices.ContainsFunc(describe.ProfileNames[:i], func(p string) bool { return t.Windows[p][f.Number] == w }) {
				continue // the same rows as in a profile before
			}
			if err := t.proveForm(profile, f, reached); err != nil {
				return 0, err
			}
		}
	}
	if len(reached) != len(t.Rows) {
		for i := range t.Rows {
			if r := &t.Rows[i]; !reached[r] {
				return 0, fmt.Errorf("%s:%d: row of %s was not proved", r.source.File, r.source.Line, r.source.Form)
			}
		}
	}
	return len(reached), nil
}

func (t *Tables) proveForm(profile string, f *describe.Form, reached map[*Row]bool) error {
	for in := range instances(f) {
		row := t.Row(profile, f.Number, in)
		if row.Kind == "None" {
			continue
		}
		reached[row] = true
		pieces := t.Pieces(row, in)
		for i, code := range pieces {
			s := t.Steps[int(row.First)+i].source
			dist := 0
			want := reference(s, in)
			if s.Enc.Short != 0 {
				dist = distance(pieces, i, row.labelled(s.Ops[0].Name))
				want[1] = byte(dist)
			}
			fail := func(format string, args ...any) error {
				return fmt.Errorf("%s:%d: %s %+v: % x: %s", row.source.File, s.Line, f.Name, in, code, fmt.Sprintf(format, args...))
			}
			if !bytes.Equal(code, want) {
				return fail("the notation gives % x", want)
			}
			inst, err := x86asm.Decode(code, 64)
			if err != nil || inst.Len != len(code) {
				return fail("decoded as %d bytes, error %v", inst.Len, err)
			}
			if got, want := x86asm.IntelSyntax(inst, 0, nil), expected(s, in, dist); got != want {
				return fail("reads %q, want %q", got, want)
			}
		}
	}
	return nil
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
