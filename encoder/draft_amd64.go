//go:build amd64 && !purego

package encoder

//go:generate go run -C=../gen ./asm/encoder -out ../encoder/encoder_amd64.s -stubs ../encoder/zencoder_amd64.go -pkg encoder

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// assembly tells whether the processor has what the assembly is made of: PEXT
// and vectors of 32 bytes. Every one since 2013 has, but for some small ones.
var assembly = cpu.X86.HasBMI2 && cpu.X86.HasAVX2

// How much the assembly does at once. It can't be preempted, and the collector
// should not have to wait for more than some microseconds.
const (
	batch     = 8   // instructions whose classes are found together
	chunk     = 256 // instructions of a call, a multiple of batch
	joinChunk = 512 // marks of a call
)

// writeJob is what writeAVO works on. gen/asm/encoder has the offsets.
type writeJob struct {
	insns  *abi.Insn // slot number 'first'
	ends   *uint32
	ranks  *uint32
	marks  *Mark
	finder *finder
	lookup *lookup
	steps  *tables.Step
	bits   *uint64
	at     *byte // where the next step is to be written

	first, next, stop int // in slots
	rank              int
	class             uint64
}

// joinJob is what joinAVO works on.
type joinJob struct {
	from  *byte   // the draft from where it isn't joined yet
	ends  *uint32 // of the draft
	marks *Mark
	gaps  *Gap
	to    *byte
	out   *uint32 // ends of the result

	next, stop int    // in marks
	slot       int    // whose end comes next
	end        uint64 // of the draft before the slot: an element of ends
	shift      uint64 // from ends of the draft to those of the result
}

// finder is what finds the rows of a profile, in one piece.
type finder struct {
	tables.Finder
	class [256]uint32
}

// lookup is what the rows of all profiles are made of, in one piece. Rows and
// index have fixed places so that the generator of the assembly needn't know
// how many rows there are.
type lookup struct {
	rows  [1 << 10]tables.Row
	index [1 << 13]uint32 // offsets of rows in bytes
	pairs [256 * len(tables.Pairs)]uint64
}

// everything is the tables in the shape that the assembly wants. It takes some
// 50 microseconds to build.
var everything = sync.OnceValue(func() *struct {
	lookup
	finders [tables.NumProfiles][2]finder // without and with tables.PrivateFrame
} {
	e := new(struct {
		lookup
		finders [tables.NumProfiles][2]finder
	})
	copy(e.rows[:], tables.Rows[:])
	for i, id := range tables.RowIndex {
		e.index[i] = uint32(id) * tables.RowSize
	}
	for i, p := range tables.Pairs {
		for regs := range uint16(256) {
			e.pairs[256*i+int(regs)] = tables.Bits[p[0]+regs&15] ^ tables.Bits[p[1]+regs>>4]
		}
	}
	for p := range e.finders {
		for frame := range 2 {
			f := &e.finders[p][frame]
			f.Finder, f.class = tables.Finders[p], tables.RegClass
			for regs := range 256 * frame {
				f.class[regs] = frameClass(uint8(regs))
			}
		}
	}
	return e
})

func (d *Draft) write(profile tables.Profile, insns []abi.Insn, frame bool) bool {
	if !assembly {
		return d.writeGeneric(profile, insns, frame)
	}
	return d.writeASM(profile, insns, frame)
}

func (d *Draft) writeASM(profile tables.Profile, insns []abi.Insn, frame bool) bool {
	e := everything()
	job := writeJob{
		insns: &insns[0], ends: &d.Ends[0], ranks: &d.Ranks[0], marks: &d.Marks[0],
		finder: &e.finders[profile][0], lookup: &e.lookup, steps: &tables.Steps[0], bits: &tables.Bits[0],
	}
	if frame {
		job.finder = &e.finders[profile][1]
	}
	d.code = d.code[:cap(d.code)]
	// Whole batches are read where they are, with the slot behind them.
	for whole := (len(insns) - 1) / batch * batch; job.next < whole; {
		job.stop = min(job.next+chunk, whole)
		d.makeRoom(&job, len(insns))
		if !writeAVO((*[14]uint64)(unsafe.Pointer(&job))) {
			return false
		}
	}
	// The rest is read from a copy with more behind it, which is no half of a
	// constant.
	var rest [batch + 1]abi.Insn
	for i := copy(rest[:], insns[job.next:]); i < len(rest); i++ {
		rest[i].Op = abi.OpJa
	}
	job.insns, job.first, job.stop = &rest[0], job.next, len(insns)
	d.makeRoom(&job, len(insns))
	ok := writeAVO((*[14]uint64)(unsafe.Pointer(&job)))
	d.Class = uint32(job.class)
	return ok
}

// typical is what the steps of a slot have in bytes, rounded up.
const typical = 6

// makeRoom sees to it that the slots from next up to stop can't get longer than
// the room there is. Ends count in addresses, so they move with the code.
func (d *Draft) makeRoom(job *writeJob, n int) {
	base := unsafe.Pointer(unsafe.SliceData(d.code))
	used := 0
	if job.at != nil {
		used = int(uintptr(unsafe.Pointer(job.at)) - uintptr(base))
	}
	need := used + (job.stop-job.next)*longest + Slack
	if need > len(d.code) {
		need = max(need, n*typical, used*3/2) + chunk*longest
		d.code = append(make([]byte, 0, need), d.code[:used]...)
		d.code = d.code[:cap(d.code)]
		moved := uint32(uintptr(unsafe.Pointer(&d.code[0]))) - uint32(uintptr(base))
		for i := range d.Ends[:job.next+1] {
			d.Ends[i] += moved
		}
	}
	job.at = &d.code[used]
	if job.next == 0 {
		d.Ends[0] = uint32(uintptr(unsafe.Pointer(job.at)))
	}
}

func (d *Draft) join(code []byte, at int, gaps []Gap, ends []uint32) {
	if !assembly {
		d.joinGeneric(code, at, gaps, ends)
		return
	}
	d.joinASM(code, at, gaps, ends)
}

func (d *Draft) joinASM(code []byte, at int, gaps []Gap, ends []uint32) {
	// What stands behind the last mark is joined as if there were one more.
	n := len(d.Marks)
	marks := append(d.Marks, Mark{Slot: uint32(len(d.Ends) - 2)})
	gaps = append(gaps[:n], Gap{})
	job := joinJob{
		from: &d.code[0], ends: &d.Ends[0], marks: &marks[0], gaps: &gaps[0], to: &code[at], out: &ends[0],
		end: uint64(d.Ends[0]), shift: uint64(uint32(at) - d.Ends[0]),
	}
	for job.next <= n {
		job.stop = min(job.next+joinChunk, n+1)
		joinAVO((*[11]uint64)(unsafe.Pointer(&job)))
	}
}
