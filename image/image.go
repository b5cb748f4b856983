package image

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
)

// Image is code that can be executed. Its methods may be called from several
// goroutines at once, until it is freed.
type Image struct {
	region *Region
	span   span
	start  int32 // of the code, behind the header
	table  int32 // bytes of the exception table
	length int   // of the code
	addr   uintptr
	freed  atomic.Bool
}

// write puts header, code and table into b, which consists of traps.
func (im *Image) write(b, code, table []byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	b = b[headerSize+int(im.start):]
	copy(b, code)
	copy(b[TableOffset(len(code)):], table)
}

// code returns the offset of the code in the region.
func (im *Image) code() int { return im.span.off + headerSize + int(im.start) }

// Region returns the region that the image lies in.
func (im *Image) Region() *Region { return im.region }

// Addr returns the address of the first instruction.
func (im *Image) Addr() uintptr { return im.addr }

// Len returns the length of the code in bytes.
func (im *Image) Len() int { return im.length }

// Start returns the distance from the end of the header to the first
// instruction, in bytes: the random part of its address.
func (im *Image) Start() int { return int(im.start) }

// Size returns the bytes that the image takes, header and gaps included.
func (im *Image) Size() int { return im.span.size }

// Offset returns the offset of a program counter in the code, and whether it
// lies in there.
func (im *Image) Offset(pc uintptr) (int, bool) {
	off := pc - im.Addr()
	return int(off), off < uintptr(im.length)
}

// Contains reports whether a program counter lies in the code.
func (im *Image) Contains(pc uintptr) bool {
	_, ok := im.Offset(pc)
	return ok
}

// Lookup returns the exception table's row for the instruction at an offset
// of the code, if there is one.
func (im *Image) Lookup(offset int) (Entry, bool) {
	if im.table == 0 {
		return Entry{}, false
	}
	at := im.code() + TableOffset(im.length)
	return lookup(im.region.mem.readable(at, int(im.table)), im.length, offset)
}

// Bytes returns a copy of the code.
func (im *Image) Bytes() []byte { return bytes.Clone(im.region.mem.readable(im.code(), im.length)) }

// Free takes the image out of use. Nothing may run it any more. Freeing it
// again does nothing.
func (im *Image) Free() {
	if !im.freed.Swap(true) {
		im.region.give(im.span)
	}
}
