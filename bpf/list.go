package bpf

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit/tables"
)

// Text returns an instruction in the notation of llvm-objdump and the
// kernel, such as "r1 += 5" or "if r1 s> 5 goto +3". AX is r11. Of a 64-bit
// constant it shows the half at hand; Program.Text shows all of it. A slot
// that is no instruction is shown by its fields.
func Text(i Insn) string {
	return text(i, 0, false)
}

// Text returns the instruction in a slot. The whole 64-bit constant is
// shown, and behind the distance of a jump the slot that it leads to:
// "if r1 s> 5 goto +3 <12>".
func (p *Program) Text(slot int) string {
	i := p.Insns[slot]
	var next int32
	if slot+1 < len(p.Insns) {
		next = p.Insns[slot+1].Imm
	}
	s := text(i, next, true)
	if d, ok := Distance(i); ok {
		s += fmt.Sprintf(" <%d>", slot+1+int(d))
	}
	return s
}

// text renders the template of the instruction's form. next is the imm of
// the following slot.
func text(i Insn, next int32, hasNext bool) string {
	f, ok := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
	if !ok {
		return fmt.Sprintf("op %#02x dst %d src %d off %d imm %d", i.Op, i.Dst(), i.Src(), i.Off, i.Imm)
	}
	form := &tables.Forms[f]
	var s strings.Builder
	for rest := form.Text; rest != ""; {
		before, tail, found := strings.Cut(rest, "{")
		s.WriteString(before)
		if !found {
			break
		}
		token, after, _ := strings.Cut(tail, "}")
		rest = after
		switch token {
		case "dst":
			s.WriteString("r" + strconv.Itoa(int(i.Dst())))
		case "src":
			s.WriteString("r" + strconv.Itoa(int(i.Src())))
		case "wdst":
			s.WriteString("w" + strconv.Itoa(int(i.Dst())))
		case "wsrc":
			s.WriteString("w" + strconv.Itoa(int(i.Src())))
		case "imm":
			s.WriteString(number(i.Imm, form.Imm.Use))
		case "off":
			s.WriteString(number(int32(i.Off), form.Off.Use))
		case "next":
			s.WriteString(strconv.Itoa(int(next)))
		case "imm64":
			if hasNext {
				fmt.Fprintf(&s, "%#x", uint64(uint32(next))<<32|uint64(uint32(i.Imm)))
			} else {
				fmt.Fprintf(&s, "...%08x", uint32(i.Imm))
			}
		}
	}
	return s.String()
}

// number renders a constant as 5, a distance as +5, a displacement as " + 5".
func number(v int32, u tables.Use) string {
	switch u {
	case tables.UseDistance:
		return fmt.Sprintf("%+d", v)
	case tables.UseDisplacement:
		if v < 0 {
			return " - " + strconv.Itoa(-int(v))
		}
		return " + " + strconv.Itoa(int(v))
	}
	return strconv.Itoa(int(v))
}

// ListOptions says what a listing shows besides the instructions.
type ListOptions struct {
	// Numbers adds the slot numbers, and to jumps the slots they lead to.
	Numbers bool
	// Bytes adds the 8 bytes of each slot in hex.
	Bytes bool
	// Marks adds "+" to inserted slots, "?" to fault-tolerant loads, and
	// the source slot of each slot that isn't where its author put it.
	Marks bool
}

// List writes the program, one line a slot.
func (p *Program) List(w io.Writer, opts ListOptions) error {
	b := bufio.NewWriter(w)
	width := len(strconv.Itoa(len(p.Insns)))
	var raw []byte
	for slot, i := range p.Insns {
		if opts.Numbers {
			fmt.Fprintf(b, "%*d: ", width, slot)
		}
		if opts.Bytes {
			raw = AppendInsn(raw[:0], i)
			fmt.Fprintf(b, "% x  ", raw)
		}
		if opts.Marks {
			b.WriteString(mark(p.Flag(slot)))
			if p.Moved() {
				fmt.Fprintf(b, "%*d  ", width, p.Source(slot))
			}
		}
		if opts.Numbers {
			b.WriteString(p.Text(slot))
		} else {
			b.WriteString(p.plain(slot))
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// plain is Text without the slot a jump leads to.
func (p *Program) plain(slot int) string {
	if slot+1 < len(p.Insns) {
		return text(p.Insns[slot], p.Insns[slot+1].Imm, true)
	}
	return Text(p.Insns[slot])
}

func mark(f Flag) string {
	switch {
	case f&Inserted != 0:
		return "+ "
	case f&Probe != 0:
		return "? "
	}
	return "  "
}
