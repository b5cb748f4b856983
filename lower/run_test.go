package lower_test

import (
	"fmt"
	"math"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/tables"
)

// run executes a lowered program of few forms on registers, as x86 does: a
// division by 0 or one that overflows is an error. The only memory is the
// counter of may_goto.
func run(p *bpf.Program, r *[12]uint64) error {
	var counter uint64
	for slot := 0; ; slot++ {
		i := p.Insns[slot]
		f, _ := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
		form := &tables.Forms[f]
		dst, k := &r[i.Dst()], uint64(int64(i.Imm))
		src := r[i.Src()]
		if form.Src.Fixed() {
			src = k
		}
		switch f {
		case tables.FormJmpExit:
			return nil
		case tables.FormJmpCharge:
		case tables.FormStMemDw:
			counter = k
		case tables.FormStxMemDw:
			counter = src
		case tables.FormLdxMemDw:
			*dst = counter
		case tables.FormJmpJa:
			slot += int(i.Off)
		case tables.FormJmpJeqK, tables.FormJmpJneK, tables.FormJmpJgtK, tables.FormJmp32JeqK, tables.FormJmp32JneK, tables.FormJmp32JgtK:
			a, b := *dst, k
			if i.Op&abi.ClassMask == abi.ClassJMP32 {
				a, b = uint64(uint32(a)), uint64(uint32(b))
			}
			if taken(i.Op&abi.OpMask, a, b) {
				slot += int(i.Off)
			}
		default:
			v, err := calculate(f, *dst, src)
			if err != nil {
				return fmt.Errorf("slot %d: %s: %w", slot, bpf.Text(i), err)
			}
			*dst = v
		}
	}
}

func taken(op uint8, a, b uint64) bool {
	switch op {
	case 0x10:
		return a == b
	case 0x50:
		return a != b
	}
	return a > b
}

// calculate does arithmetic as x86 does.
func calculate(f tables.Form, a, b uint64) (uint64, error) {
	op := tables.Forms[f].Op
	mask, least := ^uint64(0), int64(math.MinInt64)
	sa, sb := int64(a), int64(b)
	if op&abi.ClassMask == abi.ClassALU {
		mask, least = 0xffffffff, math.MinInt32
		sa, sb = int64(int32(a)), int64(int32(b))
	}
	a, b = a&mask, b&mask
	signed := tables.Forms[f].Off.Value == 1
	if kind := op & abi.OpMask; kind == 0x30 || kind == 0x90 {
		if b == 0 || signed && sa == least && sb == -1 {
			return 0, fmt.Errorf("%d / %d traps", sa, sb)
		}
	}
	var v uint64
	switch op & abi.OpMask {
	case 0x00:
		v = a + b
	case 0x10:
		v = a - b
	case 0x20:
		v = a * b
	case 0x30:
		if v = a / b; signed {
			v = uint64(sa / sb)
		}
	case 0x80:
		v = -a
	case 0x90:
		if v = a % b; signed {
			v = uint64(sa % sb)
		}
	case 0xa0:
		v = a ^ b
	case 0xb0:
		v = b
	default:
		return 0, fmt.Errorf("not expected here")
	}
	return v & mask, nil
}
