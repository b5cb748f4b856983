package bpfjit

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

// Listing shows a program's instructions beside the machine code that was
// made of them, under the lines of C that both come from:
//
//	count:
//	; filter.bpf.c:127  NOINLINE u32 count(u32 kind, u32 bytes)
//	                                              550  push rbp
//	                                              551  lea ebp, ptr [rbp-0x210]
//	                                              557  push rbx
//	  216+ charge 12                              558  sub r9, 0xc
//	                                              55c  jb 0x5b6
//	  216  w6 = w2                                562  mov ebx, esi
//
// On the left are slots of the source program; an instruction that its author
// did not write is marked with +. On the right are offsets in the code.
type Listing struct {
	// Source gives names and lines; nil: there are none.
	Source *Source
	// Program is what was compiled: the source program, or what it became on
	// the way.
	Program *bpf.Program
	// Code is what it was compiled to, or nil: only Program is shown.
	Code *jit.Code
	// Bytes adds the bytes of both.
	Bytes bool
}

// Widths of the columns of a listing.
const (
	textWidth = 42
	slotBytes = 3*8 + 1
	codeBytes = 3*10 - 1
)

// Write writes the listing.
func (l *Listing) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	if l.Code == nil {
		l.slots(b, 0, len(l.Program.Insns), 0)
		return b.Flush()
	}
	for i := range l.Code.Funcs {
		f := &l.Code.Funcs[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		l.slots(b, f.Start, f.End, f.Entry)
		if f.Cold < f.Limit {
			fmt.Fprintln(b, "; out of line")
			l.rows(b, "", f.Cold, f.Limit)
		}
	}
	return b.Flush()
}

// slots writes the slots of a function, whose code begins at offset at.
func (l *Listing) slots(b *bufio.Writer, start, end int, at uint32) {
	p := l.Program
	var last Line
	for slot := start; slot < end; slot++ {
		src := p.Source(slot)
		if slot == start || src != p.Source(slot-1) {
			last = l.head(b, src, last)
		}
		if slot == start && l.Code != nil {
			if f := l.Code.Slot(at); f < 0 { // a prologue
				at = l.rows(b, "", at, l.body(start))
			}
		}
		if secondHalf(p.Insns, slot) {
			continue
		}
		to := at
		if l.Code != nil {
			to = l.Code.Ends[slot]
			if slot+1 < end && secondHalf(p.Insns, slot+1) {
				to = l.Code.Ends[slot+1]
			}
		}
		at = l.rows(b, l.slot(slot, src), at, to)
	}
}

// body returns where the code of the first slot of a function begins.
func (l *Listing) body(start int) uint32 {
	for i := range l.Code.Funcs {
		if f := &l.Code.Funcs[i]; f.Start == start {
			return f.Body
		}
	}
	return 0
}

// head writes the name of the function that begins at a source slot, and the
// line that the slot was compiled from if it isn't the last one.
func (l *Listing) head(b *bufio.Writer, src int, last Line) Line {
	if l.Source == nil {
		return last
	}
	if name := l.Source.FuncName(src); name != "" {
		if l.Code == nil && src > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%s:\n", name)
	}
	line := l.Source.Line(src)
	line.Column = 0
	if line != last && line != (Line{}) {
		fmt.Fprintf(b, "; %s\n", line.comment())
	}
	return line
}

// slot returns the left column: the instruction.
func (l *Listing) slot(slot, src int) string {
	p := l.Program
	mark := ' '
	if p.Flag(slot)&bpf.Inserted != 0 {
		mark = '+'
	}
	var raw string
	if l.Bytes {
		raw = fmt.Sprintf("% x  ", bpf.AppendInsn(nil, p.Insns[slot]))
	}
	return fmt.Sprintf("%5d%c %s%s", src, mark, raw, l.text(slot, src))
}

// text returns the instruction of a slot. Distances and what they lead to are
// those of the source program, where the author wrote the instruction.
func (l *Listing) text(slot, src int) string {
	p, in := l.Program, l.Program.Insns[slot]
	if l.Source == nil {
		return p.Text(slot)
	}
	own := p.Flag(slot)&bpf.Inserted == 0
	for _, ref := range l.Source.Maps {
		if ref.Slot == src && own {
			return fmt.Sprintf("%s ; %s", p.Text(slot), ref)
		}
	}
	if wrote := l.Source.Program.Insns[src]; own && wrote.Op == in.Op && in.Op != abi.OpLdImm64 {
		if _, ok := bpf.Distance(wrote); ok {
			return l.Source.Program.Text(src)
		}
	}
	d, ok := bpf.Distance(in)
	if !ok {
		return p.Text(slot)
	}
	text := bpf.Text(in)
	if to := slot + 1 + int(d); to >= 0 && to < len(p.Insns) {
		text += fmt.Sprintf(" <%d>", p.Source(to))
	}
	return text
}

// rows writes the code from offset at up to end, an instruction a row, with
// left beside the first one. It returns end.
func (l *Listing) rows(b *bufio.Writer, left string, at, end uint32) uint32 {
	if at >= end {
		if left != "" {
			fmt.Fprintln(b, left)
		}
		return at
	}
	width := textWidth
	if l.Bytes {
		width += slotBytes
	}
	for at < end {
		x := disassemble(l.Code.Bytes[:end], int(at))
		x.text = l.relocated(x)
		fmt.Fprintf(b, "%-*s %5x  ", width, left, x.offset)
		if l.Bytes {
			fmt.Fprintf(b, "%-*s  ", codeBytes, fmt.Sprintf("% x", l.Code.Bytes[at:int(at)+x.size]))
		}
		fmt.Fprintln(b, x.text)
		left = ""
		at += uint32(x.size)
	}
	return end
}

// relocated returns the text of a machine instruction, with a name for what
// only a linker knows.
func (l *Listing) relocated(x x86) string {
	relocs := l.Code.Relocs
	i := sort.Search(len(relocs), func(i int) bool { return int(relocs[i].Offset) >= x.offset })
	if i == len(relocs) || int(relocs[i].Offset) >= x.offset+x.size {
		return x.text
	}
	head, _, comma := strings.Cut(x.text, ", ")
	if !comma {
		head, _, _ = strings.Cut(x.text, " ")
		return head + " " + l.target(relocs[i])
	}
	return head + ", " + l.target(relocs[i])
}

// target names what a relocated field refers to.
func (l *Listing) target(r jit.Reloc) string {
	switch r.Kind {
	case jit.RelReturnThunk:
		return "<return thunk>"
	case jit.RelIndirectThunk:
		return "<indirect thunk>"
	}
	in := l.Program.Insns[r.Slot]
	switch r.Kind {
	case jit.RelHelper:
		return fmt.Sprintf("<%v>", asm.BuiltinFunc(in.Imm))
	case jit.RelKfunc:
		return fmt.Sprintf("<kfunc %d>", in.Imm)
	case jit.RelLocal:
		if l.Source != nil {
			funcs, err := bpf.Functions(l.Source.Program)
			if err == nil && in.Imm >= 0 && int(in.Imm) < len(funcs) && l.Source.FuncName(funcs[in.Imm].Start) != "" {
				return fmt.Sprintf("<%s>", l.Source.FuncName(funcs[in.Imm].Start))
			}
		}
		return fmt.Sprintf("<function %d>", in.Imm)
	case jit.RelMap:
		if l.Source != nil {
			for _, ref := range l.Source.Maps {
				if ref.Slot == l.Program.Source(r.Slot) {
					return fmt.Sprintf("<%s>", ref)
				}
			}
		}
		return "<map>"
	}
	return "<address>"
}
