package main

import . "github.com/mmcloughlin/avo/operand"

// Properties of an opcode: bits of a byte. stores and loads are accesses to
// memory, computes and shifts and wide write dst, and all but those that have
// no bit leave r11 alone. That move is bit 6 and add bit 7 is of use.
const (
	stores = 1 << iota
	loads
	computes
	shifts
	jumps
	wide
	move
	add
)

// A product holds the opcodes whose lower half is one of low and whose upper
// half is one of high; they have a property.
type product struct {
	property  uint8
	low, high []uint8
}

// products are all of them, one for each property. Opcodes that don't exist
// may be where they like, since no program has them.
var products = []product{
	{stores, []uint8{0x2, 0x3, 0xa, 0xb}, []uint8{0x6, 0x7}},
	{loads, []uint8{0x1, 0x9}, []uint8{0x6, 0x7, 0x8, 0x9}},
	{computes, []uint8{0x4, 0x7, 0xc, 0xf}, []uint8{0x0, 0x1, 0x2, 0x4, 0x5, 0x8, 0xa, 0xb, 0xd, 0xe, 0xf}},
	{shifts, []uint8{0x4, 0x7}, []uint8{0x6, 0x7, 0xc}},
	{jumps, []uint8{0x5, 0x6, 0xd, 0xe}, []uint8{0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xa, 0xb, 0xc, 0xd, 0xe}},
	{wide, []uint8{0x8}, []uint8{0x1}},
	{move, []uint8{0xc, 0xf}, []uint8{0xb}},
	// The second half of a constant, 0, is among them so that it is something
	// that leaves r11 alone. No move is before it.
	{add, []uint8{0x0, 0x4, 0x7, 0xc, 0xf}, []uint8{0x0}},
}

// half makes the table of a half of the opcode: what may be its properties.
func half(name string, of func(product) []uint8) Mem {
	var t [16]uint8
	for _, p := range products {
		for _, h := range of(p) {
			t[h] |= p.property
		}
	}
	return bytes(name, func(i int) uint8 { return t[i] })
}
