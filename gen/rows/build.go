package main

import (
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/gen/describe"
)

// native gives the x86 register of each eBPF register number that a slot may
// hold: R0 to R10, AX, and r9, the frame of a private stack.
var native = [13]uint8{0, 7, 6, 2, 1, 8, 3, 13, 14, 15, 5, 10, 9}

// Tables is what the encoder needs, before it is written out.
type Tables struct {
	desc    *Description
	Bits    [][16]uint64 // contributions of a register to a head; 0 is none
	Steps   []Step
	Rows    []Row
	Index   []uint16             // of RowIndex
	Windows map[string][]Window  // by profile, then by form number
	Used    map[describeRef]bool // rows of x86.txt that some window reaches
	rowKey  map[string]uint16    // rows already made, by content
	bitKey  map[[16]uint64]uint8 // likewise Bits
}

type describeRef struct {
	line int
	form string
}

// Step mirrors tables.Step.
type Step struct {
	Head      [2]uint64
	Len       [2]uint8
	Dst, Src  [2]uint8
	Mod       [2]uint8
	Rex       uint8
	Disp, Imm uint8
	Arg       string
	Label     uint8
	source    *describe.Step
}

// Row mirrors tables.Row.
type Row struct {
	First  uint16
	Count  uint8
	Kind   string
	Short  uint8
	source *describe.Row
	keep   []bool // which steps of source are in it
}

// Window mirrors tables.Window.
type Window struct {
	Base        uint16
	Shift, Mask uint8
}

const noLabel = 0xff

var args = map[string]string{"imm": "ArgImm", "off": "ArgOff", "vsyscall": "ArgVsyscall", "limit": "ArgLimit",
	"percpu": "ArgPercpu", "user": "ArgUser"}

// Build makes the tables, or says which line can't be had.
func Build(d *Description) (*Tables, error) {
	t := &Tables{desc: d, Windows: map[string][]Window{}, Used: map[describeRef]bool{},
		rowKey: map[string]uint16{}, bitKey: map[[16]uint64]uint8{}}
	t.bits([16]uint64{})
	t.Rows = append(t.Rows, Row{Kind: "None"})
	t.Index = append(t.Index, 0) // the window of forms without rows
	known := map[string]bool{}
	for _, f := range d.Forms {
		known[f.Name] = true
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; !known[r.Form] {
			return nil, fmt.Errorf("%s:%d: bpf.txt has no form %q", r.File, r.Line, r.Form)
		}
	}
	for _, profile := range describe.ProfileNames {
		ws := make([]Window, len(d.Forms)+1)
		for _, f := range d.Forms {
			var err error
			if ws[f.Number], err = t.window(profile, f); err != nil {
				return nil, err
			}
		}
		t.Windows[profile] = ws
	}
	for i := range d.Rows {
		if r := &d.Rows[i]; !t.Used[describeRef{r.Line, r.Form}] {
			return nil, fmt.Errorf("%s:%d: no instruction ever takes this row of %s", r.File, r.Line, r.Form)
		}
	}
	return t, nil
}

// window lays out the rows of a form in a profile.
func (t *Tables) window(profile string, f *describe.Form) (Window, error) {
	var rows []*describe.Row
	lo, hi := 64, -1
	for i := range t.desc.Rows {
		r := &t.desc.Rows[i]
		if r.Form != f.Name || !slices.Contains(r.Profiles, profile) {
			continue
		}
		rows = append(rows, r)
		conds := []describe.Cond{r.Cond}
		for _, s := range r.Steps {
			conds = append(conds, s.Guard)
		}
		for _, c := range conds {
			for _, name := range c.Names() {
				bit := slices.Index(describe.Properties, name)
				lo, hi = min(lo, bit), max(hi, bit)
			}
		}
	}
	if len(rows) == 0 {
		return Window{}, nil
	}
	if hi < 0 {
		lo, hi = 0, -1
	}
	n := hi - lo + 1
	if n > 6 {
		return Window{}, fmt.Errorf("%s:%d: the conditions of %s span %d bits of the class, more than 6",
			rows[0].File, rows[0].Line, f.Name, n)
	}
	w := Window{Base: uint16(len(t.Index)), Shift: uint8(lo), Mask: uint8(1<<n - 1)}
	index := make([]uint16, 1<<n)
	possible := make([]bool, 1<<n)
	for in := range instances(f) {
		possible[class(in)>>lo&uint32(w.Mask)] = true
	}
	for key := range index {
		if !possible[key] {
			continue // such as dst=r0 and dst=r3 at once
		}
		has := func(name string) bool {
			bit := slices.Index(describe.Properties, name)
			return key>>(bit-lo)&1 != 0
		}
		for _, r := range rows {
			if !r.Cond.Holds(has) {
				continue
			}
			id, err := t.row(r, has)
			if err != nil {
				return w, fmt.Errorf("%s:%d: %w", r.File, r.Line, err)
			}
			index[key] = id
			t.Used[describeRef{r.Line, r.Form}] = true
			break
		}
	}
	// Windows of the same rows share their place.
	for base := 1; base+len(index) <= len(t.Index); base++ {
		if slices.Equal(t.Index[base:base+len(index)], index) {
			w.Base = uint16(base)
			return w, nil
		}
	}
	t.Index = append(t.Index, index...)
	return w, nil
}

// row makes the row of r for instructions with the properties of has.
func (t *Tables) row(r *describe.Row, has func(string) bool) (uint16, error) {
	row := Row{First: uint16(len(t.Steps)), Kind: "Plain", source: r}
	if r.Compiler {
		row.Kind = "Compiler"
	}
	var steps []Step
	labels := map[string]int{}
	for i := range r.Steps {
		s := &r.Steps[i]
		keep := s.Guard.Holds(has)
		row.keep = append(row.keep, keep)
		if s.Label != "" {
			if !keep {
				return 0, fmt.Errorf("line %d: a step with a label can't have a guard", s.Line)
			}
			labels[s.Label] = len(steps)
		}
		if !keep || s.Enc == nil {
			continue
		}
		if s.Enc.Short != 0 || s.Enc.Long != nil {
			if s.Ops[0].Name == "target" {
				row.Short = s.Enc.Short
				switch {
				case i != len(r.Steps)-1:
					return 0, fmt.Errorf("line %d: a jump must be the last step", s.Line)
				case s.Enc.Short == 0:
					row.Kind = "Charge"
				case s.Enc.Short == 0xeb:
					row.Kind = "Ja"
				default:
					row.Kind = "Jcc"
				}
				continue
			}
		}
		step, err := t.step(s)
		if err != nil {
			return 0, fmt.Errorf("line %d: %w", s.Line, err)
		}
		steps = append(steps, step)
	}
	if len(steps) > 16 {
		return 0, fmt.Errorf("%d steps, at most 16 fit", len(steps))
	}
	if err := resolveLabels(&row, steps, labels); err != nil {
		return 0, err
	}
	for _, s := range steps {
		if s.Arg != "ArgImm" {
			row.Kind = "Special"
		}
	}
	key := fmt.Sprint(row.Kind, row.Short)
	for _, s := range steps {
		s.source = nil
		key += fmt.Sprint(s)
	}
	if id, ok := t.rowKey[key]; ok {
		return id, nil
	}
	row.Count = uint8(len(steps))
	t.Steps = append(t.Steps, steps...)
	t.rowKey[key] = uint16(len(t.Rows))
	t.Rows = append(t.Rows, row)
	return t.rowKey[key], nil
}

// resolveLabels puts the distance of jumps inside the row into their heads
// where all steps between are of fixed length; otherwise the row is Special.
func resolveLabels(row *Row, steps []Step, labels map[string]int) error {
	for i := range steps {
		s := steps[i].source
		if s.Enc.Short == 0 {
			continue
		}
		target, ok := labels[s.Ops[0].Name]
		if !ok {
			return fmt.Errorf("line %d: no label %q", s.Line, s.Ops[0].Name)
		}
		fixed, distance := true, 0
		from, to := i+1, target
		if target <= i {
			from, to = target, i+1
		}
		for _, b := range steps[from:to] {
			fixed = fixed && b.Rex == 0 && b.Disp == 0
			distance += int(b.Len[0]) + int(b.Imm) // no register can ask for a REX
		}
		if target <= i {
			distance = -distance
		}
		if fixed {
			for v := range steps[i].Head {
				steps[i].Head[v] |= uint64(uint8(distance)) << 8
			}
		} else {
			row.Kind, steps[i].Label = "Special", uint8(target)
		}
	}
	return nil
}

// step makes the template of s by encoding it for every register and taking
// the differences; that they add up is checked for every pair.
func (t *Tables) step(s *describe.Step) (Step, error) {
	st := Step{Arg: "ArgImm", Label: noLabel, source: s}
	if s.Enc.Short != 0 {
		head := uint64(s.Enc.Short)
		st.Head, st.Len = [2]uint64{head, head}, [2]uint8{2, 2}
		return st, nil
	}
	always := s.NeedsRex(0, 0)
	switch {
	case always:
	default:
		for i, regs := range [][2]uint8{{8, 0}, {0, 8}, {0, 6}} {
			if s.NeedsRex(regs[0], regs[1]) {
				st.Rex |= 1 << i
			}
		}
		if s.NeedsRex(6, 0) {
			return st, fmt.Errorf("a byte of dst isn't supported")
		}
	}
	tail, err := st.tail(s)
	if err != nil {
		return st, err
	}
	for v := range 2 {
		rex := v == 1 || always
		word := func(dst, src uint8) (uint64, int, int) {
			head, modrm := s.Head(dst, src, rex, false)
			head = append(head, tail...)
			var w uint64
			for i, b := range head {
				w |= uint64(b) << (8 * i)
			}
			return w, len(head), modrm
		}
		head, n, modrm := word(0, 0)
		if n > 8 {
			return st, fmt.Errorf("%d bytes before the displacement, at most 8 fit", n)
		}
		st.Head[v], st.Len[v], st.Mod[v] = head, uint8(n), uint8(8*max(modrm, 0))
		var dst, src [16]uint64
		for r, hw := range native {
			wd, _, _ := word(hw, 0)
			ws, _, _ := word(0, hw)
			dst[r], src[r] = wd^head, ws^head
		}
		for rd, hd := range native {
			for rs, hs := range native {
				if w, _, _ := word(hd, hs); w != head^dst[rd]^src[rs] {
					return st, fmt.Errorf("%s: the bits of both registers don't add up", s.Text)
				}
			}
		}
		st.Dst[v], st.Src[v] = t.bits(dst), t.bits(src)
	}
	return st, nil
}

// tail sets the fields that describe displacement and immediate; what is
// constant is returned and becomes part of the head.
func (st *Step) tail(s *describe.Step) ([]byte, error) {
	var constant []byte
	little := func(v int64, n int) {
		for i := range n {
			constant = append(constant, byte(v>>(8*i)))
		}
	}
	m, imm := s.MemoryOperand(), s.Immediate()
	switch {
	case m == nil || !m.HasDisp:
	case m.Off:
		st.Disp = 1
	case m.Name != "":
		if imm != nil {
			return nil, fmt.Errorf("a parameter as displacement and an immediate")
		}
		st.Imm, st.Arg = 4, args[m.Name]
	default:
		little(m.Const, s.DispSize())
	}
	switch {
	case imm == nil:
	case imm.Name == "":
		if st.Disp != 0 {
			return nil, fmt.Errorf("a constant behind an offset isn't supported")
		}
		little(imm.Const, s.Enc.ImmSize())
	default:
		st.Imm, st.Arg = uint8(s.Enc.ImmSize()), args[imm.Name]
	}
	if st.Arg == "" {
		return nil, fmt.Errorf("a parameter of %q isn't known", s.Text)
	}
	return constant, nil
}

// bits returns the row of Bits with this content.
func (t *Tables) bits(b [16]uint64) uint8 {
	if id, ok := t.bitKey[b]; ok {
		return id
	}
	t.bitKey[b] = uint8(len(t.Bits))
	t.Bits = append(t.Bits, b)
	return t.bitKey[b]
}
