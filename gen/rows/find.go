package main

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/bpfjit/bpfjit/gen/describe"
)

// Class is the class of an instruction: the bits of tables.ClassDstR3 and so
// on.
type Class uint32

// The bits of a class, as in tables.
const (
	classDstR3 = 1 << (iota + 3)
	classSrcR3
	classDstR4
	classSrcR4
	classSrcByte
	classImm8
	classImmNeg
	classImmZero
	classImmOne
	classHighZero
	classHighOnes
	classOff8
	classOffZero
	classDstR0
	classSrcR0
	classDstSrc
	classDstR10
	classSrcR10
	classDst8
	classSrc8
	classUsesR6 // and R7, R8, R9 above it

	classBad = 1

	classBits = 23
	// classRegs are the bits that depend on registers alone.
	classRegs = classDstR3 | classSrcR3 | classDstR4 | classSrcR4 | classSrcByte |
		classDstR0 | classSrcR0 | classDstSrc | classDstR10 | classSrcR10 | classDst8 | classSrc8
)

// propertyBits are the bits that have to be set for a property of x86.txt.
var propertyBits = map[string]uint32{
	"s32": classHighOnes | classImmNeg, "u32": classHighZero,
	"imm8": classImm8, "imm<0": classImmNeg, "imm=0": classImmZero, "imm=1": classImmOne, "off=0": classOffZero,
	"dst=r0": classDstR0, "dst=r3": classDstR3, "dst=r4": classDstR4, "dst=r10": classDstR10,
	"src=r0": classSrcR0, "src=r3": classSrcR3, "src=r4": classSrcR4, "src=r10": classSrcR10, "dst=src": classDstSrc,
}

// has tells whether an instruction has a property.
func (c Class) has(name string) bool { return uint32(c)&propertyBits[name] == propertyBits[name] }

// class returns the class of an instance.
func class(in Insn) Class {
	dst, src := native[in.Dst], native[in.Src]
	var c Class
	for _, b := range []struct {
		holds bool
		bit   Class
	}{
		{in.Dst == 3, classDstR3}, {in.Src == 3, classSrcR3}, {in.Dst == 4, classDstR4}, {in.Src == 4, classSrcR4},
		{src >= 4 && src < 8, classSrcByte},
		{in.Imm >= -128 && in.Imm <= 127, classImm8}, {in.Imm < 0, classImmNeg},
		{in.Imm == 0, classImmZero}, {in.Imm == 1, classImmOne},
		{in.High == 0, classHighZero}, {in.High == -1, classHighOnes},
		{in.Off >= -128 && in.Off <= 127, classOff8}, {in.Off == 0, classOffZero},
		{in.Dst == 0, classDstR0}, {in.Src == 0, classSrcR0}, {in.Dst == in.Src, classDstSrc},
		{in.Dst == 10, classDstR10}, {in.Src == 10, classSrcR10}, {dst >= 8, classDst8}, {src >= 8, classSrc8},
	} {
		if b.holds {
			c |= b.bit
		}
	}
	return c
}

// Finder mirrors tables.Finder: the row of an instruction with the key k is
// Index[Base + the bits of k that are in Mask, side by side].
type Finder struct {
	Mask uint64
	Base int
}

// find returns where in Index the row of a key is.
func (f *Finder) find(k uint64) int {
	i := 0
	for n, m := 0, f.Mask; m != 0; n, m = n+1, m&(m-1) {
		i |= int(k>>bits.TrailingZeros64(m)&1) << n
	}
	return f.Base + i
}

// key returns what a Finder works on: the class, and above it the slot
// without its lowest bits.
func key(op uint8, in Insn) uint64 {
	slot := uint64(op) | uint64(in.Dst)<<8 | uint64(in.Src)<<12 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
	return slot<<classBits | uint64(class(in))
}

// findersOf makes the finders of a profile.
func (t *Tables) findersOf(number int, profile string) error {
	byOp := make([][]*describe.Form, 256)
	for _, f := range t.desc.Forms {
		byOp[f.Op] = append(byOp[f.Op], f)
	}
	finders := make([]Finder, 256)
	for op, forms := range byOp {
		if earlier := t.sameAs(number, forms); earlier != "" {
			finders[op] = t.Finders[earlier][op]
			continue
		}
		rows, err := t.keys(profile, forms)
		if err != nil {
			return err
		}
		if finders[op], err = t.finder(rows); err != nil {
			return fmt.Errorf("opcode %02x in %s: %w", op, profile, err)
		}
	}
	t.Finders[profile] = finders
	return nil
}

// sameAs returns a profile before this one in which the forms have the same
// rows, or "".
func (t *Tables) sameAs(number int, forms []*describe.Form) string {
	lists := t.lists[describe.ProfileNames[number]]
	for _, earlier := range describe.ProfileNames[:number] {
		same := true
		for _, f := range forms {
			same = same && slices.Equal(t.lists[earlier][f.Number], lists[f.Number])
		}
		if same {
			return earlier
		}
	}
	return ""
}

// keys returns the row of every key that an instruction of these forms can
// have; the forms are those of one opcode.
func (t *Tables) keys(profile string, forms []*describe.Form) (map[uint64]uint16, error) {
	rows := map[uint64]uint16{}
	if len(forms) == 0 {
		return rows, nil
	}
	mask := uint64(1)<<classBits - 1
	for _, f := range forms[1:] { // what tells it from the first one
		m1, v1 := forms[0].Match()
		m2, v2 := f.Match()
		mask |= (v1 ^ v2) & m1 & m2 << classBits
	}
	for _, f := range forms {
		for in := range instances(f) {
			row, err := t.Row(profile, f, in)
			if err != nil {
				return nil, err
			}
			k := key(f.Op, in) & mask
			switch old, ok := rows[k]; {
			case !ok || old == 0:
				rows[k] = uint16(row.Number)
			case row.Number != 0 && old != uint16(row.Number):
				return nil, fmt.Errorf("%s:%d: nothing tells %s from another form", row.source.File, row.source.Line, f.Name)
			}
		}
	}
	return rows, nil
}

// maxWindow is the largest number of bits that a finder may have.
const maxWindow = 10

// finder makes a finder and enters its rows into Index.
func (t *Tables) finder(rows map[uint64]uint16) (Finder, error) {
	f := Finder{Mask: neededBits(rows)}
	n := bits.OnesCount64(f.Mask)
	if n > maxWindow {
		return f, fmt.Errorf("%d bits of %#x tell the rows apart, at most %d fit", n, f.Mask, maxWindow)
	}
	w := make([]uint16, 1<<n)
	for k, row := range rows {
		w[f.find(k)] = row
	}
	f.Base = t.window(w)
	return f, nil
}

// window returns where a window stands in Index.
func (t *Tables) window(w []uint16) int {
	for base := 0; base+len(w) <= len(t.Index); base++ {
		if slices.Equal(t.Index[base:base+len(w)], w) {
			return base
		}
	}
	t.Index = append(t.Index, w...)
	return len(t.Index) - len(w)
}

// neededBits returns a set of bits that still tells all rows apart, none of
// which can be left out. Bits of the class are left out first.
func neededBits(rows map[uint64]uint16) uint64 {
	var mask uint64
	for k := range rows {
		mask |= k
	}
	for i := range 64 {
		bit := uint64(1) << ((classBits - 1 - i) & 63)
		seen := map[uint64]uint16{}
		needed := false
		for k, row := range rows {
			old, ok := seen[k&mask&^bit]
			needed = needed || ok && old != row
			seen[k&mask&^bit] = row
		}
		if !needed {
			mask &^= bit
		}
	}
	return mask
}
