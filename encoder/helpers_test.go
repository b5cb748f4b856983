package encoder

import (
	"math/rand/v2"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// impl is an implementation of Draft.Extend and Joint.Extend, which call it.
type impl struct {
	name       string
	extend     func(d *Draft, stop int) bool
	extendJoin func(j *Joint, stop int)
}

// join does what Join does, with the implementation, in two parts if there are
// marks for that.
func (im impl) join(d *Draft, code []byte, at int, gaps []Gap, ends []uint32) {
	j := Joint{Draft: d, Code: code, At: at, Gaps: gaps, Ends: ends}
	j.Begin()
	j.Marks, j.At, j.slot = 0, at, 0 // all again
	clear(code)
	clear(ends)
	im.extendJoin(&j, len(j.Gaps)/2)
	im.extendJoin(&j, len(j.Gaps))
}

// write does what Write does, with the implementation, in two parts if there are
// slots for that.
func (im impl) write(d *Draft, profile tables.Profile, insns []abi.Insn, frame bool) bool {
	d.Begin(profile, insns, frame)
	for _, stop := range []int{len(insns) / 3, len(insns)} {
		if insns[0].Op == 0 || stop > 0 && !im.extend(d, stop) {
			return false
		}
	}
	return true
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
		n := uint8(r.IntN(tables.PrivateFrame + 1))
		if n == abi.R10 && o.Writes() {
			n = abi.R9
		}
		return n
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
	OK    bool
	Slots []uint32 // of marks
	Rows  []uint32 // likewise
	Class uint32
	Draft []uint32 // Ends, from 0
	Ranks []uint32

	Code []byte // gaps are zero
	Ends []uint32
}

// encode runs an implementation over a program, between guards. gap gives the
// room of each mark. A program that is refused has no result but that.
func encode(t testing.TB, im impl, p tables.Profile, prog []abi.Insn, gap func(k int) uint32, atEnd bool) result {
	t.Helper()
	n := len(prog)
	insns := guarded[abi.Insn](t, n, atEnd)
	copy(insns, prog)
	d := Draft{
		Ends: guarded[uint32](t, n+1+EndsSlack, atEnd)[:n+1], Ranks: guarded[uint32](t, n+1, atEnd),
		Marks: guarded[Mark](t, n+1, atEnd), code: guarded[byte](t, n*Longest+Slack, atEnd),
	}
	if !im.write(&d, p, insns, true) {
		return result{}
	}
	res := result{OK: true, Class: d.Class}
	for slot := range d.Ends {
		steps, rank := d.Before(uint32(slot))
		res.Draft, res.Ranks = append(res.Draft, steps), append(res.Ranks, rank)
	}
	size, at := d.Len(), 3
	gaps := guarded[Gap](t, len(d.Marks)+1, atEnd)[:len(d.Marks)]
	for k, m := range d.Marks {
		res.Slots, res.Rows = append(res.Slots, m.Slot), append(res.Rows, m.row)
		gaps[k] = MakeGap(0xa3a4a5a6a7a8, gap(k))
		size += int(gaps[k].Len())
	}
	code := guarded[byte](t, at+size+Slack, atEnd)
	ends := guarded[uint32](t, n+EndsSlack, atEnd)
	im.join(&d, code, at, gaps, ends)
	res.Ends = ends[:n]
	for k, m := range d.Marks {
		room := code[ends[m.Slot]-gaps[k].Len() : ends[m.Slot]]
		for i, b := range room[:min(6, len(room))] {
			if b != 0xa8-byte(i) {
				t.Errorf("%s: byte %d of gap %d is %#x", im.name, i, k, b)
			}
		}
		clear(room)
	}
	res.Code = code[at : at+size]
	return res
}
