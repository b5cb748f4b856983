package blind

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

func clone(p *bpf.Program) *bpf.Program {
	return &bpf.Program{Insns: slices.Clone(p.Insns), Flags: slices.Clone(p.Flags), Origin: slices.Clone(p.Origin)}
}

// same reports whether two programs are equal. cmp.Diff then shows where
// they aren't; it takes its time.
func same(a, b *bpf.Program) bool {
	a, b = a.Flat(), b.Flat()
	return slices.Equal(a.Insns, b.Insns) && slices.Equal(a.Flags, b.Flags) && slices.Equal(a.Origin, b.Origin)
}

// words is a reader of given random numbers. It counts what is read.
type words struct {
	next func() uint32
	read int
}

func (w *words) Read(b []byte) (int, error) {
	for i := 0; i+4 <= len(b); i += 4 {
		binary.LittleEndian.PutUint32(b[i:], w.next())
	}
	w.read += len(b)
	return len(b), nil
}

// list returns the numbers of a list, and then io.EOF.
func list(numbers []uint32) io.Reader { return &listed{numbers} }

type listed struct{ left []uint32 }

func (l *listed) Read(b []byte) (int, error) {
	if len(l.left) == 0 {
		return 0, io.EOF
	}
	n := 0
	for ; n+4 <= len(b) && len(l.left) > 0; n += 4 {
		binary.LittleEndian.PutUint32(b[n:], l.left[0])
		l.left = l.left[1:]
	}
	return n, nil
}

// drawn returns the random numbers that a blinded program was made with: in
// each "mov AX, a; xor AX, b" b is one.
func drawn(insns []bpf.Insn) (numbers []uint32) {
	for i := 1; i < len(insns); i++ {
		mov, xor := insns[i-1], insns[i]
		if mov.Regs == abi.AX && xor.Regs == abi.AX &&
			(mov.Op == 0xb7 && xor.Op == 0xa7 || mov.Op == 0xb4 && xor.Op == 0xa4) {
			numbers = append(numbers, uint32(xor.Imm))
		}
	}
	return numbers
}
