package encoder

import (
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// impl is an implementation of Measure and Emit.
type impl struct {
	name    string
	measure func(finders *[256]tables.Finder, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int)
	emit    func(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int
}

var profiles = []struct {
	name    string
	profile tables.Profile
}{
	{"kernel", tables.Kernel}, {"kernel.nobmi2", tables.KernelNoBMI2}, {"v5.13", tables.V513},
	{"cage", tables.Cage}, {"cage.nobmi2", tables.CageNoBMI2},
}

// pick returns an element of a list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// instance returns a random instruction of a form, both slots of it if it has
// two. The registers are those that a translated program may name, and the one
// for a private stack.
func instance(r *rand.Rand, f tables.Form) []abi.Insn {
	info := &tables.Forms[f]
	register := func(o tables.Operand) uint8 {
		if o.Fixed() {
			return uint8(o.Value)
		}
		return uint8(r.IntN(tables.PrivateFrame + 1))
	}
	constant := func(o tables.Operand) int32 {
		if o.Fixed() {
			return o.Value
		}
		switch r.IntN(4) {
		case 0:
			return pick[int32](r, -129, -128, -1, 0, 1, 2, 127, 128, 1<<15, 1<<31-1, -1<<31)
		case 1:
			return int32(int8(r.Uint32()))
		}
		return int32(r.Uint32())
	}
	in := abi.Insn{
		Op:   info.Op,
		Regs: abi.Registers(register(info.Dst), register(info.Src)),
		Off:  int16(constant(info.Off)), Imm: constant(info.Imm),
	}
	if in.Op != abi.OpLdImm64 {
		return []abi.Insn{in}
	}
	return []abi.Insn{in, {Imm: pick(r, 0, -1, constant(tables.Operand{Use: tables.UseConstant}))}}
}

// coded lists the forms that have code in a profile; a form that has some for
// one instance has some for all.
func coded(p tables.Profile) (forms []tables.Form) {
	r := rand.New(rand.NewPCG(1, 1))
	for f := tables.FormNone + 1; f < tables.NumForms; f++ {
		if RowOf(p, instance(r, f)[0]).Kind != tables.None {
			forms = append(forms, f)
		}
	}
	return forms
}

// result is what a program becomes.
type result struct {
	Marks []uint32
	End   int
	Rows  []uint16
	Pos   []Position

	N    int // the bytes of Code, or what is wrong
	Code []byte
	Ends []uint32
}

// encode runs an implementation over a program, between guards. gap gives the
// room of each mark. Where Measure comes to an end early, the rest is left
// out.
func encode(t testing.TB, im impl, p tables.Profile, prog []abi.Insn, gap func(k int) uint32, atEnd bool) result {
	t.Helper()
	insns := guarded[abi.Insn](t, len(prog), atEnd)
	copy(insns, prog)
	rows := guarded[uint16](t, len(prog), atEnd)
	pos := guarded[Position](t, len(prog)+1, atEnd)
	marks := guarded[uint32](t, len(prog), atEnd)
	pos[0] = 3<<32 | 100
	n, end := im.measure(&tables.Finders[p], insns, rows, pos, marks)
	res := result{Marks: marks[:n], End: end, Rows: rows[:end], Pos: pos[:end+1]}
	size := int(pos[end].Bytes() - pos[0].Bytes())
	gaps := guarded[uint32](t, n, atEnd)
	for k := range gaps {
		gaps[k] = gap(k)
		size += int(gaps[k])
	}
	if end == 0 {
		return res
	}
	// The instruction behind the end isn't to be read.
	insns = guarded[abi.Insn](t, end, atEnd)
	copy(insns, prog)
	code := guarded[byte](t, size+Slack, atEnd)
	res.Ends = guarded[uint32](t, end, atEnd)
	res.N = im.emit(code, insns, res.Rows, gaps, res.Ends)
	if res.N != size {
		t.Errorf("%s: %d bytes, measured %d", im.name, res.N, size)
		return res
	}
	// What is in the gaps is nobody's.
	for k, m := range res.Marks {
		e := res.Ends[m]
		clear(code[e-gaps[k] : e])
	}
	res.Code = code[:res.N]
	return res
}
