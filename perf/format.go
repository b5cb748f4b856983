package perf

import (
	"encoding/binary"
	"fmt"
)

// The jitdump format, little-endian. A file begins with a header:
//
//	u32 magic, version     "JiTD" as a number, 1
//	u32 size               of the header
//	u32 machine            e_machine of ELF
//	u32 0
//	u32 pid
//	u64 time               nanoseconds of CLOCK_MONOTONIC
//	u64 flags              0
//
// Records follow:
//
//	u32 kind, size         of all the record
//	u64 time
//
//	load: u32 pid, tid     debug: u64 address of the code
//	      u64 vma, address        u64 number of entries, each of which is
//	      u64 size, index           u64 address
//	      name, 0                   u32 line, discriminator
//	      code                      file, 0
//
// The debug record of a function comes before the one that loads it. (There is
// a short form for a file that is that of the entry before, the name of one byte
// 255; perf 6.1 shows it as a name.)
const (
	magic   = 0x4a695444
	version = 1
	x86_64  = 62 // EM_X86_64

	kindLoad  = 0
	kindDebug = 2
	kindClose = 3

	headerSize = 40
)

// pageSize is where the records of functions begin. perf finds a dump by a
// mapping of its beginning that is executable. Nobody executes it, but what is
// executable should be nobody's choice, and names of functions and files are.
// So the first page has the header only, and a debug record about nothing that
// is as long as the rest of the page and holds int3. (perf 6.1 doesn't read on
// behind a header that is longer.)
const pageSize = 4096

const int3 = 0xcc

func appendHeader(b []byte, pid int, time uint64) []byte {
	start := len(b)
	for _, v := range []uint32{magic, version, headerSize, x86_64, 0, uint32(pid)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, time)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return appendRecord(b, kindDebug, time, func(b []byte) []byte {
		b = append(b, make([]byte, 16)...) // no address, no entries
		for len(b)-start < pageSize {
			b = append(b, int3)
		}
		return b
	})
}

// appendRecord appends a record with what body appends.
func appendRecord(b []byte, kind uint32, time uint64, body func([]byte) []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, time)
	b = body(b)
	binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start))
	return b
}

func appendLoad(b []byte, f *Func, pid, tid int, index, time uint64) []byte {
	return appendRecord(b, kindLoad, time, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, uint32(pid))
		b = binary.LittleEndian.AppendUint32(b, uint32(tid))
		for _, v := range []uint64{f.Addr, f.Addr, uint64(len(f.Code)), index} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		b = append(append(b, f.Name...), 0)
		return append(b, f.Code...)
	})
}

func appendDebug(b []byte, f *Func, time uint64) []byte {
	return appendRecord(b, kindDebug, time, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, f.Addr)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(f.Lines)))
		for _, l := range f.Lines {
			b = binary.LittleEndian.AppendUint64(b, f.Addr+uint64(l.Offset))
			b = binary.LittleEndian.AppendUint32(b, uint32(l.Number))
			b = binary.LittleEndian.AppendUint32(b, 0)
			b = append(append(b, clean(l.File)...), 0)
		}
		return b
	})
}

func appendClose(b []byte, time uint64) []byte {
	return appendRecord(b, kindClose, time, func(b []byte) []byte { return b })
}

// appendMap appends a line of a map: address and size in hex, and the name.
func appendMap(b []byte, f *Func) []byte {
	return fmt.Appendf(b, "%x %x %s\n", f.Addr, len(f.Code), f.Name)
}
