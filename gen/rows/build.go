package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfjit/bpfjit/gen/describe"
)

// native gives the x86 register of each eBPF register number that a slot may
// hold: R0 to R10, AX, and r9, the frame of a private stack.
var native = [13]uint8{0, 7, 6, 2, 1, 8, 3, 13, 14, 15, 5, 10, 9}

// lastRegister is AX, the last one that a slot may name by itself.
const lastRegister = 11

// Tables is what the encoder needs, before it is written out.
type Tables struct {
	desc    *Description
	Bits    [][16]uint64 // contributions of a register to a head; 0 is none
	Steps   []*Step
	Rows    []*Row
	Index   []uint16                  // of RowIndex
	Pairs   [][2]int                  // of Dst and Src that the first step of a row has
	Finders map[string][]Finder       // by profile, then by opcode
	lists   map[string][]rowList      // by profile, then by form number
	forms   map[string]*describe.Form // by name
	used    map[*describe.Row]bool
	cases   map[rowCase]*Row   // rows already made, by what they come from
	rowKey  map[string]*Row    // likewise, by content
	bitKey  map[[16]uint64]int // likewise Bits
}

// rowList is what x86.txt says of a form in a profile, in its order.
type rowList []*describe.Row

// rowCase is a row of x86.txt and those class bits that its steps depend on.
type rowCase struct {
	row   *describe.Row
	class uint32
}

// Step mirrors tables.Step, with sizes in place of offsets.
type Step struct {
	Head         uint64
	N, Disp, Imm int // bytes of head, displacement and immediate
	Arg          string
	Last         int        // bytes of head that belong to the last part
	dst, src     [16]uint64 // contributions to Head
	Dst, Src     int        // the same in Bits
	parts        []*describe.Step
	key          string // tells steps of different bytes apart
}

// Len returns the bytes of a step.
func (s *Step) Len() int { return s.N + s.Disp + s.Imm }

// Row mirrors tables.Row. Rows of several lines of x86.txt may have one
// Number; each knows its own line.
type Row struct {
	Number int
	First  int
	Steps  []*Step
	Kind   string
	Short  uint8
	Pair   int
	Check  Check
	source *describe.Row
}

// Check is what a slot must be like to have a row: its bits in Mask are those
// of Value, and its class has none of the bits in Refuse.
type Check struct {
	Mask, Value uint64
	Refuse      uint32
}

// checkOf returns the check of a form.
func checkOf(f *describe.Form) Check {
	var c Check
	c.Mask, c.Value = f.Match()
	c.Refuse = classBad
	for i, o := range []describe.Field{f.Dst, f.Src} {
		if o.Use == "w" || o.Use == "rw" {
			c.Refuse |= []uint32{classDstR10, classSrcR10}[i]
		}
	}
	return c
}

// Size returns the bytes of a row's steps.
func (r *Row) Size() int {
	n := 0
	for _, s := range r.Steps {
		n += s.Len()
	}
	return n
}

// last returns the bytes of the last x86 instruction.
func (r *Row) last() int {
	s := r.Steps[len(r.Steps)-1]
	return s.Last + s.Disp + s.Imm
}

// emitted returns the number of steps that Emit writes.
func (r *Row) emitted() int {
	if r.Kind == "Special" || r.Kind == "Compiler" {
		return 0
	}
	return len(r.Steps)
}

// noted tells whether package jit wants to know where a form's code is: of
// constants that stand for addresses, and of accesses to an arena.
func noted(form string) bool {
	switch form {
	case "ld.imm64", "ld.second":
		return false
	}
	return strings.HasPrefix(form, "ld.") || strings.HasPrefix(form, "arena") || strings.Contains(form, ".probe32")
}

var args = map[string]string{"imm": "ArgImm", "off": "ArgOff", "vsyscall": "ArgVsyscall", "limit": "ArgLimit",
	"percpu": "ArgPercpu", "user": "ArgUser"}

// Build makes the tables, or says which line can't be had.
func Build(d *Description) (*Tables, error) {
	t := &Tables{desc: d, Finders: map[string][]Finder{}, lists: map[string][]rowList{}, forms: map[string]*describe.Form{}, used: map[*describe.Row]bool{},
		cases: map[rowCase]*Row{}, rowKey: map[string]*Row{}, bitKey: map[[16]uint64]int{}}
	t.bits([16]uint64{})
	t.Pairs = [][2]int{{0, 0}}
	t.Rows = []*Row{{Kind: "None", Check: Check{Value: 1}}} // no slot has it
	t.Index = []uint16{0}                                   // for opcodes without rows
	for _, f := range d.Forms {
		t.forms[f.Name] = f
	}
	for _, profile := range describe.ProfileNames {
		lists := make([]rowList, len(d.Forms)+1)
		for i := range d.Rows {
			r := &d.Rows[i]
			f := t.forms[r.Form]
			if f == nil {
				return nil, fmt.Errorf("%s:%d: bpf.txt has no form %q", r.File, r.Line, r.Form)
			}
			if slices.Contains(r.Profiles, profile) {
				lists[f.Number] = append(lists[f.Number], r)
			}
		}
		t.lists[profile] = lists
	}
	for i, profile := range describe.ProfileNames {
		if err := t.findersOf(i, profile); err != nil {
			return nil, err
		}
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; !t.used[r] {
			return nil, fmt.Errorf("%s:%d: no instruction ever takes this row of %s", r.File, r.Line, r.Form)
		}
	}
	return t, nil
}

// Row returns the row of an instance in a profile; row 0 if there is none.
func (t *Tables) Row(profile string, f *describe.Form, in Insn) (*Row, error) {
	c := class(in)
	for _, r := range t.lists[profile][f.Number] {
		if !r.Cond.Holds(c.has) {
			continue
		}
		key := rowCase{r, uint32(c) & depends(r)}
		if row, ok := t.cases[key]; ok {
			return row, nil
		}
		t.used[r] = true
		row, err := t.makeRow(r, c)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", r.File, r.Line, err)
		}
		t.cases[key] = row
		return row, nil
	}
	return t.Rows[0], nil
}

// depends returns the class bits that the steps of a row depend on.
func depends(r *describe.Row) uint32 {
	var bits uint32
	for i := range r.Steps {
		s := &r.Steps[i]
		for _, name := range s.Guard.Names() {
			bits |= propertyBits[name]
		}
		if s.Enc == nil {
			continue
		}
		if !s.NeedsRex(0, 0) {
			bits |= classDst8 | classSrc8 | classSrcByte
		}
		if m := s.MemoryOperand(); m != nil && m.Off {
			bits |= classOff8
		}
	}
	return bits
}

// makeRow makes the row of r for instructions of a class.
func (t *Tables) makeRow(r *describe.Row, c Class) (*Row, error) {
	row := &Row{Kind: "Plain", Check: checkOf(t.forms[r.Form]), source: r}
	if r.Compiler {
		row.Kind = "Compiler"
	}
	labels := map[string]int{} // steps before
	for i := range r.Steps {
		s := &r.Steps[i]
		keep := s.Guard.Holds(c.has)
		if s.Label != "" {
			if !keep {
				return nil, fmt.Errorf("line %d: a step with a label can't have a guard", s.Line)
			}
			labels[s.Label] = len(row.Steps)
		}
		if !keep || s.Enc == nil {
			continue
		}
		if s.Enc.Short != 0 || s.Enc.Long != nil {
			if s.Ops[0].Name == "target" {
				row.Short = s.Enc.Short
				switch {
				case i != len(r.Steps)-1:
					return nil, fmt.Errorf("line %d: a jump must be the last step", s.Line)
				case s.Enc.Short == 0 && s.Enc.Long[0] == 0xe8:
					row.Kind = "Call"
				case s.Enc.Short == 0:
					row.Kind = "Charge"
				case s.Enc.Short == 0xeb && r.Form == "jmp.gotol":
					row.Kind = "Gotol"
				case s.Enc.Short == 0xeb:
					row.Kind = "Ja"
				default:
					row.Kind = "Jcc"
				}
				continue
			}
		}
		step, err := makeStep(s, c)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", s.Line, err)
		}
		row.Steps = append(row.Steps, step)
	}
	if err := resolveLabels(row.Steps, labels); err != nil {
		return nil, err
	}
	for _, s := range row.Steps {
		if s.Arg != "ArgImm" {
			row.Kind = "Special"
		}
	}
	if row.Kind != "Special" {
		row.Steps = fuse(row.Steps)
	}
	if row.Kind == "Plain" && noted(r.Form) {
		row.Kind = "Noted"
	}
	if len(row.Steps) > 16 || row.Size() > 127 {
		return nil, fmt.Errorf("%d steps of %d bytes, at most 16 of 127 fit", len(row.Steps), row.Size())
	}
	return t.intern(row), nil
}

// resolveLabels puts the distance of jumps inside the row into their heads.
func resolveLabels(steps []*Step, labels map[string]int) error {
	for i, s := range steps {
		d := s.parts[0]
		if d.Enc.Short == 0 {
			continue
		}
		target, ok := labels[d.Ops[0].Name]
		if !ok {
			return fmt.Errorf("line %d: no label %q", d.Line, d.Ops[0].Name)
		}
		distance := 0
		for k := i + 1; k < target; k++ {
			distance += steps[k].Len()
		}
		for k := target; k <= i; k++ {
			distance -= steps[k].Len()
		}
		s.Head |= uint64(uint8(distance)) << 8
	}
	return nil
}

// fuse joins steps whose heads fit one store; only the last may have more
// than a head.
func fuse(steps []*Step) []*Step {
	var out []*Step
	for _, s := range steps {
		if len(out) > 0 {
			if l := out[len(out)-1]; l.Len() == l.N && l.N+s.N <= 8 {
				out[len(out)-1] = join(l, s)
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// join returns a step that is a and then b.
func join(a, b *Step) *Step {
	s := *b
	s.parts = slices.Concat(a.parts, b.parts)
	s.N += a.N
	at := 8 * a.N
	s.Head = a.Head | b.Head<<at
	for r := range s.dst {
		s.dst[r] = a.dst[r] ^ b.dst[r]<<at
		s.src[r] = a.src[r] ^ b.src[r]<<at
	}
	return &s
}

// makeStep makes a step for instructions of a class by encoding it for every
// register and taking the differences; that they add up is checked for every
// pair.
func makeStep(s *describe.Step, c Class) (*Step, error) {
	st := &Step{Arg: "ArgImm", parts: []*describe.Step{s}}
	if s.Enc.Short != 0 {
		st.Head, st.N, st.Last = uint64(s.Enc.Short), 2, 2
		return st, nil
	}
	rex := s.NeedsRex(0, 0)
	if !rex {
		if s.NeedsRex(6, 0) {
			return nil, fmt.Errorf("a byte of dst isn't supported")
		}
		rex = c&classDst8 != 0 && s.NeedsRex(8, 0) || c&classSrc8 != 0 && s.NeedsRex(0, 8) ||
			c&classSrcByte != 0 && s.NeedsRex(0, 6)
	}
	wide := c&classOff8 == 0
	tail, err := st.tail(s, wide)
	if err != nil {
		return nil, err
	}
	word := func(dst, src uint8) (uint64, int) {
		head, _ := s.Head(dst, src, rex, wide)
		head = append(head, tail...)
		var w uint64
		for i, b := range head {
			w |= uint64(b) << (8 * i)
		}
		return w, len(head)
	}
	if st.Head, st.N = word(0, 0); st.N > 8 {
		return nil, fmt.Errorf("%d bytes before the displacement, at most 8 fit", st.N)
	}
	st.Last = st.N
	for r, hw := range native {
		wd, _ := word(hw, 0)
		ws, _ := word(0, hw)
		st.dst[r], st.src[r] = wd^st.Head, ws^st.Head
	}
	for rd, hd := range native {
		for rs, hs := range native {
			if w, _ := word(hd, hs); w != st.Head^st.dst[rd]^st.src[rs] {
				return nil, fmt.Errorf("%s: the bits of both registers don't add up", s.Text)
			}
		}
	}
	return st, nil
}

// tail sets the fields that describe displacement and immediate; what is
// constant is returned and becomes part of the head.
func (st *Step) tail(s *describe.Step, wide bool) ([]byte, error) {
	var constant []byte
	m, imm := s.MemoryOperand(), s.Immediate()
	switch {
	case m == nil || !m.HasDisp:
	case m.Off && wide:
		st.Disp = 4
	case m.Off:
		st.Disp = 1
	case m.Name != "":
		if imm != nil {
			return nil, fmt.Errorf("a parameter as displacement and an immediate")
		}
		st.Imm, st.Arg = 4, args[m.Name]
	default:
		constant = append(constant, little(m.Const, s.DispSize())...)
	}
	switch {
	case imm == nil:
	case imm.Name == "":
		if st.Disp != 0 {
			return nil, fmt.Errorf("a constant behind an offset isn't supported")
		}
		constant = append(constant, little(imm.Const, s.Enc.ImmSize())...)
	default:
		st.Imm, st.Arg = s.Enc.ImmSize(), args[imm.Name]
	}
	if st.Arg == "" {
		return nil, fmt.Errorf("a parameter of %q isn't known", s.Text)
	}
	return constant, nil
}

// intern numbers a row; rows of the same content have one number.
func (t *Tables) intern(row *Row) *Row {
	key := fmt.Sprint(row.Kind, row.Short, row.Check)
	for _, s := range row.Steps {
		s.Dst, s.Src = t.bits(s.dst), t.bits(s.src)
		s.key = fmt.Sprint(s.Head, s.N, s.Last, s.Disp, s.Imm, s.Arg, s.Dst, s.Src, ";")
		key += s.key
	}
	if r, ok := t.rowKey[key]; ok {
		row.Number, row.First, row.Pair = r.Number, r.First, r.Pair
		return row
	}
	if row.emitted() > 0 {
		row.Pair = t.pair([2]int{row.Steps[0].Dst, row.Steps[0].Src})
	}
	row.Number, row.First = len(t.Rows), t.place(row.Steps)
	t.rowKey[key] = row
	t.Rows = append(t.Rows, row)
	return row
}

// place returns where a sequence of steps stands in Steps.
func (t *Tables) place(steps []*Step) int {
	same := func(a, b *Step) bool { return a.key == b.key }
	for i := 0; i+len(steps) <= len(t.Steps); i++ {
		if slices.EqualFunc(t.Steps[i:i+len(steps)], steps, same) {
			return i
		}
	}
	t.Steps = append(t.Steps, steps...)
	return len(t.Steps) - len(steps)
}

// bits returns the row of Bits with this content.
func (t *Tables) bits(b [16]uint64) int {
	if id, ok := t.bitKey[b]; ok {
		return id
	}
	t.bitKey[b] = len(t.Bits)
	t.Bits = append(t.Bits, b)
	return t.bitKey[b]
}

// pair returns where a pair is in Pairs.
func (t *Tables) pair(p [2]int) int {
	i := slices.Index(t.Pairs, p)
	if i < 0 {
		i = len(t.Pairs)
		t.Pairs = append(t.Pairs, p)
	}
	return i
}
