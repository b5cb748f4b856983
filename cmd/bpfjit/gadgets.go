package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

// gadgetDump is what dump -gadgets shows of a function, or of all of a caged
// program.
//
//	b8 90 90 90 3c             mov eax, 0x3c909090     entered where it begins
//	   90 90 90 3c ..          nop; nop; nop; cmp al   entered one byte later
type gadgetDump struct {
	Name      string            `json:"name"`
	Profile   string            `json:"profile"`
	Constants []*gadgetConstant `json:"constants"`
	// Plain and Blinded count the constants whose bytes are in the code.
	Plain   int `json:"plain"`
	Blinded int `json:"blinded"`
	// Refused is why there is no blinded code.
	Refused string `json:"refused,omitempty"`
}

// gadgetConstant is a constant that the author chose.
type gadgetConstant struct {
	Slot    int         `json:"slot"` // in the source
	Insn    string      `json:"insn"`
	Line    string      `json:"line,omitempty"`
	Plain   *gadgetCode `json:"plain"`
	Blinded *gadgetCode `json:"blinded,omitempty"`
}

// gadgetCode is the code of an instruction.
type gadgetCode struct {
	Offset int    `json:"offset"` // in the function's code
	Bytes  string `json:"bytes_hex"`
	// Found: the constant's own bytes are among them.
	Found bool `json:"found"`
	// Text is how it is meant; From how it reads from offsets +1 to +4.
	Text string   `json:"text"`
	From []string `json:"from"`
}

// Where a spray is entered.
const gadgetFirst, gadgetLast = 1, 4

// gadgetsKernel shows the constants of functions as a kernel compiles them.
func (d *dump) gadgetsKernel(w io.Writer, src *bpfjit.Source, functions []bpfjit.Translated, profile *jit.Profile) error {
	for i := range functions {
		f := &functions[i]
		code, err := jit.Compile(f.Program, profile, &f.Function)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		hidden, err := d.hide(f.Program)
		g := &gadgetDump{Name: f.Name, Profile: d.profile}
		var blinded *jit.Code
		if errors.Is(err, bpf.ErrRange) {
			g.Refused = reason(src, f.Program, err)
		} else if err == nil {
			blinded, err = jit.Compile(&hidden.Program, profile, &f.Function)
		}
		if err != nil && g.Refused == "" {
			return fmt.Errorf("%s, blinded: %w", f.Name, err)
		}
		g.find(src, f.Program, hidden, code, blinded)
		if err := d.writeGadgets(w, g, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// gadgetsCage shows the constants of a program as bpfjit compiles it.
func (d *dump) gadgetsCage(w io.Writer, load func(*bpfjit.Options) (*bpfjit.Program, error)) error {
	compile := func(opts bpfjit.Options) (*bpfjit.Listing, *bpfjit.Program, error) {
		opts.Engine = bpfjit.EngineJIT
		prog, err := load(&opts)
		if err != nil {
			return nil, nil, fmt.Errorf("%w (-profile kernel needs no machine)", err)
		}
		return prog.Listing(), prog, nil
	}
	plain, prog, err := compile(bpfjit.Options{})
	if err != nil {
		return err
	}
	defer prog.Close()
	opts := bpfjit.Options{Blinding: true}
	if d.seed != 0 {
		opts.Rand = randomOf(d.seed)
	}
	blinded, other, err := compile(opts)
	if err != nil {
		return err
	}
	defer other.Close()
	hidden, err := d.hide(plain.Program)
	if err != nil {
		return err
	}
	if len(hidden.Program.Insns) != len(blinded.Program.Insns) {
		return fmt.Errorf("BUG: blinding gives %d slots, then %d", len(hidden.Program.Insns), len(blinded.Program.Insns))
	}
	g := &gadgetDump{Name: prog.Name(), Profile: d.profile}
	g.find(prog.Source(), plain.Program, hidden, plain.Code, blinded.Code)
	return d.writeGadgets(w, g, true)
}

// hide hides the constants of a program.
func (d *dump) hide(p *bpf.Program) (*blind.Result, error) {
	var rand io.Reader
	if d.seed != 0 {
		rand = randomOf(d.seed)
	}
	r := new(blind.Result)
	err := r.Rewrite(p, rand)
	return r, err
}

// find looks at every constant of p that hiding replaces. blinded is the code
// of what it became, or nil.
func (g *gadgetDump) find(src *bpfjit.Source, p *bpf.Program, hidden *blind.Result, plain, blinded *jit.Code) {
	const wide = 0x18 // a constant of two slots
	references := make(map[int]bool)
	for _, ref := range src.Maps {
		references[ref.Slot] = true
	}
	index := hidden.Index
	for slot := 0; slot < len(p.Insns); slot++ {
		in, end := p.Insns[slot], slot+1
		value := binary.LittleEndian.AppendUint32(nil, uint32(in.Imm))
		if in.Op == wide && end < len(p.Insns) {
			if high := p.Insns[end].Imm; high != 0 && high != -1 {
				value = binary.LittleEndian.AppendUint32(value, uint32(high))
			}
			end++
		}
		from := p.Source(slot)
		if int(index[slot+1]-index[slot]) > 1 && !references[from] {
			c := &gadgetConstant{Slot: from, Insn: text(src, p, slot), Line: src.Line(from).String()}
			c.Plain = codeOf(plain, slot, end, value)
			if c.Plain.Found {
				g.Plain++
			}
			if blinded != nil {
				c.Blinded = codeOf(blinded, int(index[slot]), int(index[end]), value)
				if c.Blinded.Found {
					g.Blinded++
				}
			}
			g.Constants = append(g.Constants, c)
		}
		slot = end - 1
	}
}

// codeOf returns the code of slots, from one up to, not including, another.
// Slots that have no code of their own are part of an instruction before.
func codeOf(code *jit.Code, slot, end int, value []byte) *gadgetCode {
	start, stop := 0, int(code.Ends[end-1])
	for i := range code.Funcs {
		f := &code.Funcs[i]
		if slot < f.Start || slot >= f.End {
			continue
		}
		for start = stop; start == stop && slot > f.Start; slot-- {
			start = int(code.Ends[slot-1])
		}
		if start == stop {
			start = int(f.Body)
		}
	}
	b := code.Bytes[start:stop]
	c := &gadgetCode{Offset: start, Bytes: hex.EncodeToString(b), Found: bytes.Contains(b, value), Text: decode(code.Bytes, start, stop)}
	for k := gadgetFirst; k <= gadgetLast && start+k < stop; k++ {
		c.From = append(c.From, decode(code.Bytes, start+k, stop))
	}
	return c
}

// decode reads instructions from an offset on. The last one begins before
// stop, and may lead beyond; where none begins, a processor would stop.
func decode(code []byte, at, stop int) string {
	var list []string
	for at < stop {
		text, size := bpfjit.Disassemble(code, at)
		if strings.HasPrefix(text, "db ") {
			list = append(list, "bad")
			break
		}
		list = append(list, text)
		at += size
	}
	return strings.Join(list, "; ")
}

func (d *dump) writeGadgets(w io.Writer, g *gadgetDump, first bool) error {
	if d.json {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(g)
	}
	var b strings.Builder
	if !first {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "; %s: %s, %d constants; with their own bytes in the code: %d", g.Name, g.Profile, len(g.Constants), g.Plain)
	if g.Refused == "" {
		fmt.Fprintf(&b, ", %d when blinded\n", g.Blinded)
	} else {
		fmt.Fprintf(&b, "\n; can't be blinded: %s\n", g.Refused)
	}
	for _, c := range g.Constants {
		fmt.Fprintf(&b, "%5d  %s", c.Slot, c.Insn)
		if c.Line != "" {
			fmt.Fprintf(&b, "  ; %s", c.Line)
		}
		b.WriteByte('\n')
		c.Plain.write(&b, "plain", d.bytes)
		if c.Blinded != nil {
			c.Blinded.write(&b, "blinded", d.bytes)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// write shows the code as it is meant and as it reads from within.
func (c *gadgetCode) write(w io.Writer, name string, raw bool) {
	row := func(name string, offset int, text string) {
		if raw {
			b, _ := hex.DecodeString(c.Bytes)
			text = fmt.Sprintf("% x  %s", b[offset:], text)
		}
		fmt.Fprintf(w, "       %-8s %5x  %s\n", name, c.Offset+offset, text)
	}
	row(name, 0, c.Text)
	for i, text := range c.From {
		row(fmt.Sprintf("     +%d", gadgetFirst+i), gadgetFirst+i, text)
	}
}
