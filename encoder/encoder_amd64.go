//go:build amd64 && !purego

package encoder

//go:generate go run -C=../gen ./asm/encoder -out ../encoder/encoder_amd64.s -stubs ../encoder/zencoder_amd64.go -pkg encoder

import (
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// chunk is how many instructions the assembly handles in a call. It can't be
// preempted, and the collector should not have to wait for more than some
// microseconds; also what a chunk has written is still in the first cache when
// it is read again.
const chunk = 1 << 10

// measureJob is what measureAVO works on. gen/asm/encoder has the offsets.
type measureJob struct {
	insns *abi.Insn
	rows  *uint16
	pos   *Position
	marks *uint32

	next, stop, count int // in insns: goes on here, stops there, and the length

	table   *tables.Row
	first   uint64 // pos[0].Marks()
	finders *tables.Finder
	index   *uint16
	class   *uint32
}

// emitJob is what emitAVO works on.
type emitJob struct {
	insns *abi.Insn
	rows  *uint16
	ends  *uint32
	gaps  *uint32

	next, stop, count int

	table   *tables.Row
	steps   *tables.Step
	bits    *uint64
	numRows int
	code    *byte
	room    int // bytes of code that a step may end at
	at      int // bytes written
	mark    int // gaps used
	numGaps int
}

func measure(finders *[256]tables.Finder, insns []abi.Insn, rows []uint16, pos []Position, marks []uint32) (n, end int) {
	job := measureJob{
		insns: &insns[0], rows: &rows[0], pos: &pos[0], marks: &marks[0],
		count: len(insns),
		table: &tables.Rows[0],
		first: uint64(pos[0].Marks()), finders: &finders[0], index: &tables.RowIndex[0], class: &tables.RegClass[0],
	}
	for ok := true; ok && job.next < job.count; {
		job.stop = min(job.next+chunk, job.count)
		ok = measureAVO((*[12]uint64)(unsafe.Pointer(&job)))
	}
	return int(pos[job.next].Marks() - pos[0].Marks()), job.next
}

func emit(code []byte, insns []abi.Insn, rows []uint16, gaps []uint32, ends []uint32) int {
	job := emitJob{
		insns: &insns[0], rows: &rows[0], ends: &ends[0], gaps: unsafe.SliceData(gaps),
		count: len(insns),
		table: &tables.Rows[0], steps: &tables.Steps[0], bits: &tables.Bits[0], numRows: tables.NumRows,
		code: unsafe.SliceData(code), room: len(code) - Slack, numGaps: len(gaps),
	}
	for job.next < job.count {
		job.stop = min(job.next+chunk, job.count)
		if wrong := emitAVO((*[16]uint64)(unsafe.Pointer(&job))); wrong != 0 {
			return wrong
		}
	}
	return job.at
}
