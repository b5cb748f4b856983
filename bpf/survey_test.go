package bpf

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

func testRand(t *testing.T) *rand.Rand { return rand.New(rand.NewPCG(uint64(len(t.Name())), 7)) }

// testInsn makes a slot of any kind. Its fields are often 0, or have one bit,
// or a number at which something changes.
func testInsn(r *rand.Rand) Insn {
	in := Insn{Op: uint8(r.Uint32())}
	switch r.IntN(16) {
	case 0:
		in.Op = abi.OpLdImm64
	case 1:
		in.Op = opSecond
	}
	regs := []uint8{0, 1, 2, 4, 9, abi.R10, abi.AX, 12, 15}
	in.Regs = abi.Registers(regs[r.IntN(len(regs))], regs[r.IntN(len(regs))])
	switch r.IntN(4) {
	case 0:
		in.Off = 1 << r.IntN(16)
	case 1:
		in.Off = int16(-abi.FrameBytes/2*r.IntN(3) + r.IntN(20) - 10)
	case 2:
		in.Off = int16(r.Uint32())
	}
	switch r.IntN(4) {
	case 0:
		in.Imm = 1 << r.IntN(32)
	case 1:
		in.Imm = int32(r.Uint32())
	case 2:
		in.Imm = int32(16<<r.IntN(3) + (r.IntN(8)/7)<<r.IntN(32))
	}
	return in
}

// TestSurvey compares a survey with what the words of it mean, for programs of
// all lengths about those of blocks.
func TestSurvey(t *testing.T) {
	r := testRand(t)
	var s Survey
	for n := range 5 * blockSlots {
		p := &Program{Insns: make([]Insn, n)}
		for i := range p.Insns {
			p.Insns[i] = testInsn(r)
		}
		s.Take(p)
		others := s.Others()
		for i := range len(s.blocks) * blockSlots {
			var in Insn
			if i < n {
				in = p.Insns[i]
			} else {
				in.Op = 0xff // nothing
			}
			b, at := &s.blocks[i/blockSlots], i%blockSlots
			jump := reaches[in.Op] == reachOff
			other := in.Op == abi.OpGotol || in.Op == abi.OpMayGoto || IsDivision(in.Op) ||
				in.Op == abi.OpCall && in.Src() == abi.CallLocal || in.Op == abi.OpLdImm64 && in.Src() == abi.Imm64Func
			for _, w := range []struct {
				name string
				word uint64
				want bool
			}{
				{"jumps", b.jumps, jump}, {"exits", b.exits, in.Op == abi.OpExit},
				{"back", b.back, jump && in.Off < 0}, {"seconds", b.seconds, in.Op == 0}, {"others", b.others, other},
			} {
				if got := w.word>>at&1 != 0; got != w.want {
					t.Fatalf("%d slots: %s of slot %d (%v) is %v", n, w.name, i, in, got)
				}
			}
			if _, leads := Distance(in); leads && !jump && !other {
				t.Fatalf("%d slots: slot %d (%v) leads somewhere", n, i, in)
			}
			if other {
				if len(others) == 0 || others[0] != (Other{int32(i), in}) {
					t.Fatalf("%d slots: slot %d isn't among the others", n, i)
				}
				others = others[1:]
			}
		}
		if len(others) != 0 {
			t.Fatalf("%d slots: %d others too many", n, len(others))
		}
	}
}

// TestSurveyStale: a survey of a program that has another length by now isn't
// used. Its bits could be those of slots that aren't there.
func TestSurveyStale(t *testing.T) {
	exits := func(n int) *Program {
		return &Program{Insns: slices.Repeat([]Insn{{Op: abi.OpExit}}, n)}
	}
	for name, stale := range map[string]func(s *Survey){
		"shorter": func(s *Survey) {
			p := exits(100)
			s.Take(p)
			p.Insns = p.Insns[:50]
		},
		"longer": func(s *Survey) {
			p := exits(0)
			s.Take(p)
			p.Insns = exits(3).Insns
		},
		// Behind what was looked at there are bits of the program before.
		"refused": func(s *Survey) {
			p := exits(2 * chunk * blockSlots)
			s.Take(p)
			p = exits(2*chunk*blockSlots - 1)
			p.Insns[0].Off = 1
			if s.Check(p, Source) == nil {
				t.Error("a bad program passes")
			}
		},
	} {
		for use, f := range map[string]func(s *Survey){
			"Charges":       func(s *Survey) { s.Charges() },
			"Functions":     func(s *Survey) { s.Functions() },
			"ApplySurveyed": func(s *Survey) { new(Patched).ApplySurveyed(s, nil) },
			"ApplyCharged":  func(s *Survey) { new(Patched).ApplyCharged(s, nil) },
		} {
			var s Survey
			stale(&s)
			if !panics(func() { f(&s) }) {
				t.Errorf("%s takes the survey of a program that is %s", use, name)
			}
		}
	}
}

func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// TestChargesAppend: who appends to the charges of a survey changes no others.
func TestChargesAppend(t *testing.T) {
	var s Survey
	for _, n := range []int{0, 1, 100} {
		p := &Program{Insns: slices.Repeat([]Insn{{Op: abi.OpExit}}, n)}
		s.Take(p)
		want := slices.Clone(s.Charges())
		_ = append(s.Charges(), Charge{Slot: 0, N: 7})
		if got := s.Charges(); !slices.Equal(got, want) {
			t.Errorf("%d slots: %v, then %v", n, want, got)
		}
		var r Patched
		if err := r.ApplyCharged(&s, nil); err != nil || len(r.Program.Insns) != n+len(want) {
			t.Errorf("%d slots with %d charges became %d, %v", n, len(want), len(r.Program.Insns), err)
		}
		if _, index, err := Apply(p, nil); err != nil || int(index[n]) != n {
			t.Errorf("%d slots: %v", n, err)
		}
	}
}

// TestApplyInPlace: a program isn't patched in its own memory.
func TestApplyInPlace(t *testing.T) {
	var r Patched
	if err := r.Apply(&Program{Insns: []Insn{{Op: abi.OpExit}}}, nil); err != nil {
		t.Fatal(err)
	}
	if !panics(func() { r.Apply(&r.Program, nil) }) {
		t.Error("no panic")
	}
}

// TestNibbles: rectangles cover what they should, and nothing that they must
// not, with as many bits as there are.
func TestNibbles(t *testing.T) {
	r := testRand(t)
	for range 1000 {
		var in, free [256]bool
		for range r.IntN(6) {
			rows, columns := uint16(r.Uint32()), uint16(0x1111)<<r.IntN(4)|1<<r.IntN(16)
			for op := range in {
				in[op] = in[op] || rows>>(op>>4)&columns>>(op&15)&1 != 0
			}
		}
		for op := range free {
			free[op] = r.IntN(8) == 0
		}
		taken := uint8(r.Uint32())
		var n nibbles
		n.add(taken, func(op int) bool { return in[op] }, func(op int) bool { return free[op] })
		for op := range in {
			got := n.of(uint8(op))
			if got&^taken != 0 || got != 0 && !in[op] && !free[op] {
				t.Fatalf("bits %#x: %#02x has %#x", taken, op, got)
			}
		}
	}
}

// TestRefusals: of the opcodes that a dialect has, all but few are known, and
// no rule has run out of rectangles. What isn't known costs time, not more.
func TestRefusals(t *testing.T) {
	for d := range Dialect(2) {
		var allowed [256]bool
		c := checker{dialect: d}
		for f := tables.Form(1); f < tables.NumForms; f++ {
			form := &tables.Forms[f]
			if c.support(form) == tables.Allowed && (tables.Matches[f].Value == uint64(form.Op) || swap(form)) {
				allowed[form.Op] = true
			}
		}
		unknown := 0
		for op := range allowed {
			known := refusals[d].knows(uint8(op))
			if known && !allowed[op] {
				t.Errorf("%v: %#02x is known", d, op)
			}
			if allowed[op] && !known {
				t.Logf("%v: %#02x isn't known", d, op)
				unknown++
			}
		}
		if unknown > 6 {
			t.Errorf("%v: %d opcodes aren't known", d, unknown)
		}
	}
}

// TestChargesUnchecked: a program that nobody has checked has charges, too, wherever its
// calls, jumps and address constants lead.
func TestChargesUnchecked(t *testing.T) {
	r := testRand(t)
	var s Survey
	for range 20_000 {
		p := &Program{Insns: make([]Insn, 1+r.IntN(300))}
		for i := range p.Insns {
			far := int32(r.Uint32()) >> r.IntN(32)
			p.Insns[i] = []Insn{
				{Op: abi.OpGotol, Imm: far},
				{Op: abi.OpCall, Regs: abi.Registers(0, abi.CallLocal), Imm: far},
				{Op: abi.OpLdImm64, Regs: abi.Registers(0, abi.Imm64Func), Imm: far},
				{Op: abi.OpJa, Off: int16(far)},
				testInsn(r), {Op: abi.OpExit},
			}[r.IntN(6)]
		}
		s.Take(p)
		for _, c := range s.Charges() {
			if uint(c.Slot) >= uint(len(p.Insns)) {
				t.Fatalf("a charge of slot %d of %d", c.Slot, len(p.Insns))
			}
		}
	}
}
