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

// assembly tells whether the processor has what the assembly is made of.
var assembly = supported()

// supported asks for PEXT and vectors of 32 bytes; BMI1 is for package jit. Every
// processor since 2013 has them, but for some small ones.
func supported() bool { return cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 }

// How much the assembly does at once. It can't be preempted, and the collector
// should not have to wait for more than some microseconds.
const (
	batch = 16  // instructions whose classes are found together
	chunk = 256 // instructions of a call, a multiple of batch
)

// scratch is what is known of the slots of a chunk before they are written. Only the
// assembly uses it.
type scratch struct {
	fields [chunk + 2*batch]uint64 // off with its sign, and above it imm
	class  [chunk + batch]uint16   // class bits that don't come from registers
	last   [batch + 1]abi.Insn     // a copy of what isn't a whole batch
}

// writeJob is what writeAVO works on. gen/asm/encoder has the offsets.
type writeJob struct {
	insns   *abi.Insn
	ends    *uint32
	ranks   *uint32
	marks   *Mark // the next one
	finder  *finder
	lookup  *lookup
	scratch *scratch
	rows    *tables.Row
	steps   *tables.Step
	bits    *uint64
	at      *byte // where the next step is to be written

	next, stop, all int // in slots
	class           uint64
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
	rows  [1 << 10]quickRow
	index [1 << 13]uint32 // offsets of rows in bytes
	pairs [256 * len(tables.Pairs)]uint64
}

// A quickRow is a row of one step in a shape that takes few instructions, or of
// two if the second is a constant. It is a cache line.
type quickRow struct {
	head [2]uint64
	// place says for each byte of the step which of the fields it takes, from
	// the slot's element on; 0x80 is none.
	//
	//	0123     4567  89ab     cdef
	//	off      imm   next off next imm
	place [16]uint8
	// mask and value are a check of the key that finds the row: where key&mask
	// == value, the slot is what the row is for. Rows of other steps and those
	// whose check takes more bits than a key has let nothing pass.
	mask, value uint64
	length      uint64
	pair        uint32
	mark        uint32 // size of a Mark if it is one, or 0
}

// quick returns the quick row of a row.
func quick(r *tables.Row) quickRow {
	q := quickRow{
		head: [2]uint64{r.Head}, length: uint64(r.Len), pair: uint32(r.Pair), mark: uint32(r.Mark) * MarkSize,
		mask: uint64(r.Refuse), // no bit of it may be in the class
	}
	for i := range q.place {
		switch p := i - int(r.Imm); {
		case i >= int(r.Len) || i < int(r.Disp):
			q.place[i] = 0x80
		case p < 0:
			q.place[i] = uint8(i) - r.Disp
		case p < 4:
			q.place[i] = 4 + uint8(p)
		default:
			q.place[i] = 8 + uint8(p)
		}
	}
	// The registers and off are in the key; the opcode found it. Of imm the key
	// knows in its class whether it is 0 or 1.
	const low = 0xffffff00
	q.mask |= r.Mask & low << tables.ClassBits
	q.value |= r.Value & low << tables.ClassBits
	rare := r.More > 0 || r.Kind == tables.None
	if s := constantStep(r); s != nil {
		rare = false
		q.head[0] |= s.Head << (8 * r.Len) // shifts may be of 64 and more
		q.head[1] = s.Head<<(8*r.Len-64) | s.Head>>(64-8*r.Len)
		q.length += uint64(s.Len)
	}
	if imm := r.Mask >> 32; imm != 0 {
		bit := uint64(tables.ClassImmZero)
		if r.Value>>32 == 1 {
			bit = tables.ClassImmOne
		}
		q.mask |= bit
		q.value |= bit
		rare = rare || r.Value>>32 > 1
	}
	if rare {
		q.mask |= tables.ClassNever
		q.value |= tables.ClassNever
	}
	return q
}

// constantStep returns the second step of a row of two if it is the same for all
// slots and fits behind the first. In the cage that is the call of a helper.
func constantStep(r *tables.Row) *tables.Step {
	if r.More != 1 {
		return nil
	}
	s := &tables.Steps[r.First+1]
	if s.Dst|s.Src != 0 || s.Disp != s.Len || r.Len+s.Len > uint8(len(quickRow{}.place)) {
		return nil
	}
	return s
}

// everything is the tables in the shape that the assembly wants. It takes some
// 100 microseconds to build.
var everything = sync.OnceValue(func() *tablesOfAll {
	e := new(tablesOfAll)
	for i := range tables.Rows {
		e.rows[i] = quick(&tables.Rows[i])
	}
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

type tablesOfAll struct {
	lookup
	finders [tables.NumProfiles][2]finder // without and with tables.PrivateFrame
}

func (d *Draft) begin() {
	if !assembly || len(d.insns) == 0 {
		return
	}
	job := &d.job
	if d.all == nil {
		d.all = everything()
		job.scratch, job.lookup = new(scratch), &d.all.lookup
		job.rows, job.steps, job.bits = &tables.Rows[0], &tables.Steps[0], &tables.Bits[0]
	}
	frame := 0
	if d.frame {
		frame = 1
	}
	finder, end, rank := &d.all.finders[d.profile][frame], &d.Ends[0], &d.Ranks[0]
	at, marks := unsafe.SliceData(d.code), unsafe.SliceData(d.Marks)
	// Ends and ranks count in addresses.
	*end, *rank = uint32(uintptr(unsafe.Pointer(at))), uint32(uintptr(unsafe.Pointer(marks)))
	job.next, job.all, job.class = 0, len(d.insns), 0
	job.finder, job.insns, job.ends, job.ranks, job.marks, job.at = finder, &d.insns[0], end, rank, marks, at
}

// release lets go of the program.
func (d *Draft) release() { d.insns, d.job.insns = nil, nil }

func (d *Draft) extend(stop int) bool {
	if !assembly {
		return d.extendGeneric(stop)
	}
	job := &d.job
	for {
		job.stop = min(job.next+chunk, stop)
		used := int(uintptr(unsafe.Pointer(job.at)) - uintptr(unsafe.Pointer(unsafe.SliceData(d.code))))
		if room := (job.stop-job.next)*Longest + Slack; used+room > cap(d.code) {
			d.makeRoom(used, room)
		}
		if !writeChunk(job) {
			return false
		}
		if job.next == stop {
			break
		}
	}
	d.Slots, d.Class = stop, uint32(job.class)
	marks := uintptr(unsafe.Pointer(job.marks)) - uintptr(unsafe.Pointer(unsafe.SliceData(d.Marks)))
	d.Marks = d.Marks[:marks/MarkSize]
	return true
}

// writeChunk writes the slots up to job.stop. A goroutine can be preempted where it
// enters this: it calls another function and isn't inlined, so it asks for that.
//
//go:noinline
func writeChunk(job *writeJob) (ok bool) { return writeAVO((*[15]uint64)(unsafe.Pointer(job))) }

// typical is what the steps of a slot have in bytes, rounded up.
const typical = 6

// makeRoom makes room for more bytes behind those used. Ends count in addresses, so
// they move with the code.
func (d *Draft) makeRoom(used, more int) {
	job := &d.job
	need := max(used+more, job.all*typical, used*3/2) + chunk*Longest
	d.code = append(make([]byte, aside, aside+need)[aside:], d.code[:used]...)
	d.code = d.code[:cap(d.code)]
	job.at = &d.code[used]
	moved := uint32(uintptr(unsafe.Pointer(job.at))) - uint32(used) - d.Ends[0]
	for i := range d.Ends[:job.next+1] {
		d.Ends[i] += moved
	}
}

// joinSlots is how many slots a call joins, at most.
const joinSlots = 4096

// farSlots is from how many slots on fetching memory ahead pays: by then a draft and what
// is joined of it, some 20 bytes a slot, and what the passes had, are more than caches hold.
// Up to 300,000 slots it costs more than it gains.
const farSlots = 1 << 19

// isShort tells whether one call of assembly joins the whole draft.
func (d *Draft) isShort() bool {
	k := len(d.Marks)
	return assembly && len(d.Ends) <= joinSlots && 0 < k && k <= JoinPart && int(d.Marks[k-1].Slot) == d.Slots-1
}

// joinShort joins a short draft. It is to be inlined.
func (j *Joint) joinShort() bool { return joinAVO((*[13]uint64)(unsafe.Pointer(j)), len(j.Gaps)) }

func (j *Joint) extend(stop int) {
	switch {
	case !assembly:
		j.extendGeneric(stop)
	case len(j.Draft.Ends) > joinSlots:
		j.extendLong(stop)
	default:
		j.extendASM(stop)
	}
}

// extendLong joins up to the mark stop, or as many marks as lie in joinSlots slots. If
// the next one doesn't, it joins these slots, as if the mark were of the last of them
// and had no gap.
func (j *Joint) extendLong(stop int) {
	marks, last := j.Draft.Marks[:stop], uint32(j.slot+joinSlots-1)
	for stop > j.Marks+1 && marks[stop-1].Slot > last {
		stop = j.Marks + (stop-j.Marks)/2
	}
	k := j.Marks
	if k == stop || marks[k].Slot <= last {
		j.extendASM(stop)
		return
	}
	slot, gap := marks[k].Slot, j.Gaps[k]
	marks[k].Slot, j.Gaps[k] = last, 0
	j.extendASM(stop)
	marks[k].Slot, j.Gaps[k], j.Marks = slot, gap, k
}

func (j *Joint) extendASM(stop int) {
	if j.Marks >= stop {
		return
	}
	job, ok := (*[13]uint64)(unsafe.Pointer(j)), false
	if len(j.Draft.Ends) < farSlots {
		ok = joinAVO(job, stop)
	} else {
		ok = joinFarAVO(job, stop)
	}
	if !ok {
		panicRoom()
	}
}
