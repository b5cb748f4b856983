package corpus

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
)

//go:embed opcodes.tsv
var frequencies string

// frequency is a row of opcodes.tsv with the rows before it added up.
type frequency struct {
	op    uint8
	imm   int32 // of byte swaps and atomics
	below int   // this row and those above
}

// packet loads and calls of functions, a few rows in a thousand, stay out:
// the first are not eBPF any more, the others would cut programs into pieces.
func table() ([]frequency, error) {
	var rows []frequency
	total := 0
	for line := range strings.Lines(frequencies) {
		if line[0] == '#' {
			continue
		}
		var r frequency
		columns := strings.Split(strings.TrimSpace(line), "\t")
		if len(columns) != 3 {
			return nil, fmt.Errorf("opcodes.tsv: %q", line)
		}
		name, count := columns[1], 0
		if _, err := fmt.Sscan(columns[0], &r.op); err != nil {
			return nil, fmt.Errorf("opcodes.tsv: %q: %w", line, err)
		}
		if _, err := fmt.Sscan(columns[2], &count); err != nil {
			return nil, fmt.Errorf("opcodes.tsv: %q: %w", line, err)
		}
		switch {
		case strings.HasPrefix(name, "LD ABS"), strings.HasPrefix(name, "LD IND"), name == "JMP CALL bpf2bpf":
			continue
		case strings.HasPrefix(name, "ALU END"):
			fmt.Sscanf(name, "ALU END X %d", &r.imm)
		case strings.Contains(name, "imm="):
			fmt.Sscanf(name[strings.Index(name, "imm="):], "imm=0x%x", &r.imm)
		}
		total += count
		r.below = total
		rows = append(rows, r)
	}
	return rows, nil
}

// Generate returns a program of n slots that every Check of source programs
// takes, with the frequencies of opcodes.tsv. Its jumps are as far as those of
// real programs: 37 slots in the median, 90 % within 704, 12 % backward. The
// same seed gives the same program. It is there to be compiled, not to run.
func Generate(n int, seed uint64) ([]abi.Insn, error) {
	rows, err := table()
	if err != nil {
		return nil, err
	}
	g := generator{rand.New(rand.NewPCG(seed, 0)), rows, make([]abi.Insn, 0, n)}
	second := make([]bool, n) // of ldimm64: no jump goes there
	for len(g.insns) < n-1 {
		i := g.insn()
		if i.Op == abi.OpLdImm64 {
			if len(g.insns)+2 > n-1 {
				continue
			}
			second[len(g.insns)+1] = true
			g.insns = append(g.insns, i, abi.Insn{Imm: g.imm()})
			continue
		}
		g.insns = append(g.insns, i)
	}
	g.insns = append(g.insns, abi.Insn{Op: abi.OpExit})
	for at := 0; at < n; at++ {
		if jumps(g.insns[at].Op) && !second[at] {
			to := g.target(at, n)
			for second[to] {
				to--
			}
			g.insns[at].Off = int16(to - at - 1)
		}
	}
	return g.insns, nil
}

type generator struct {
	*rand.Rand
	rows  []frequency
	insns []abi.Insn
}

// jumps reports whether the opcode has a target in its offset.
func jumps(op uint8) bool {
	switch op & abi.ClassMask {
	case abi.ClassJMP, abi.ClassJMP32:
		return op != abi.OpCall && op != abi.OpExit
	}
	return false
}

// imm returns an immediate: 83 % of them fit in 8 bits.
func (g *generator) imm() int32 {
	if g.IntN(100) < 83 {
		return int32(int8(g.Uint32()))
	}
	return int32(g.Uint32()) >> g.IntN(24)
}

// target returns where the jump at slot at of n goes.
func (g *generator) target(at, n int) int {
	distance := 1 + g.IntN(73) // half of them within 37
	if g.IntN(4) == 0 {
		distance = 74 + g.IntN(1200)
	}
	if g.IntN(100) < 12 {
		return max(at-distance, 0)
	}
	return min(at+1+distance, n-1)
}

// insn returns an instruction. Offsets of jumps come later, when it is known
// where instructions begin.
func (g *generator) insn() abi.Insn {
	n, row := g.IntN(g.rows[len(g.rows)-1].below), 0
	for g.rows[row].below <= n {
		row++
	}
	f := g.rows[row]
	i := abi.Insn{Op: f.op}
	dst, src := uint8(g.IntN(10)), uint8(g.IntN(10))
	switch f.op & abi.ClassMask {
	case abi.ClassALU, abi.ClassALU64:
		switch {
		case f.op == abi.ClassALU|0xd0|abi.SourceX: // byte swap to big-endian
			i.Regs, i.Imm = abi.Registers(dst, 0), f.imm
		case f.op&abi.OpMask == 0x80: // neg
			i.Regs = abi.Registers(dst, 0)
		case f.op&abi.SourceX != 0:
			i.Regs = abi.Registers(dst, src)
		default:
			i.Regs, i.Imm = abi.Registers(dst, 0), g.constant(f.op)
		}
	case abi.ClassJMP, abi.ClassJMP32:
		switch {
		case f.op == abi.OpCall:
			i.Imm = int32(1 + g.IntN(200))
		case f.op == abi.OpExit, f.op == abi.OpJa:
		case f.op&abi.SourceX != 0:
			i.Regs = abi.Registers(dst, src)
		default:
			i.Regs, i.Imm = abi.Registers(dst, 0), g.imm()
		}
	case abi.ClassLD:
		i.Regs, i.Imm = abi.Registers(dst, 0), g.imm()
	case abi.ClassLDX:
		src, i.Off = g.address(f.op, src)
		i.Regs = abi.Registers(dst, src)
	case abi.ClassST:
		dst, i.Off = g.address(f.op, dst)
		i.Regs, i.Imm = abi.Registers(dst, 0), g.imm()
	case abi.ClassSTX:
		dst, i.Off = g.address(f.op, dst)
		i.Regs, i.Imm = abi.Registers(dst, src), f.imm
	}
	return i
}

// constant returns an immediate that the operation allows: shifts stay below
// the width, and nothing is divided by 0.
func (g *generator) constant(op uint8) int32 {
	switch op & abi.OpMask {
	case 0x60, 0x70, 0xc0: // lsh rsh arsh
		return int32(g.IntN(32))
	case 0x30, 0x90: // div mod
		return int32(1 + g.IntN(1000))
	}
	return g.imm()
}

// address returns base and offset of an access: a third are of the stack.
func (g *generator) address(op uint8, base uint8) (uint8, int16) {
	size := abi.AccessSize(op)
	if g.IntN(3) == 0 {
		return abi.R10, int16(-size * (1 + g.IntN(abi.FrameBytes/size)))
	}
	return base, int16(size * g.IntN(64))
}
