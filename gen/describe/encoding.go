package describe

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// An Encoding in the notation of the Intel manual.
type Encoding struct {
	Prefix []byte // 66, F0, F2, F3 or 65, before REX
	W      bool   // REX.W
	Rex    bool   // REX even when empty
	VEX    bool
	PP     byte // VEX's compressed prefix
	Op     []byte
	PlusR  bool   // the register is in the last opcode byte
	Digit  int    // of ModRM.reg; -1: a register is there; -2: no ModRM
	Order  string // MR, RM, RMV
	Imm    string // "", ib, iw, id, io
	// Jumps only.
	Short byte   // opcode of the form with 8 bits of distance, 0: none
	Long  []byte // opcode of the form with 32 bits, nil: none
}

var hexByte = regexp.MustCompile(`^[0-9A-F]{2}$`)

func parseEncoding(text string, ops []Operand) (*Encoding, error) {
	e := &Encoding{Digit: -2}
	if strings.HasSuffix(text, " cb") || strings.HasSuffix(text, " cd") {
		return e, e.parseJump(text)
	}
	for _, tok := range strings.Fields(text) {
		switch {
		case tok == "REX.W":
			e.W = true
		case tok == "REX":
			e.Rex = true
		case strings.HasPrefix(tok, "VEX.LZ."):
			f := strings.Split(tok, ".")
			if len(f) != 5 || f[3] != "0F38" {
				return nil, fmt.Errorf("%q: only VEX.LZ.pp.0F38.Wn is known", tok)
			}
			e.VEX, e.W = true, f[4] == "W1"
			e.PP = map[string]byte{"66": 1, "F3": 2, "F2": 3}[f[2]]
		case tok == "+r":
			e.PlusR = true
		case tok == "/r":
			e.Digit = -1
		case len(tok) == 2 && tok[0] == '/' && tok[1] <= '7':
			e.Digit = int(tok[1] - '0')
		case tok == "MR" || tok == "RM" || tok == "RMV":
			e.Order = tok
		case tok == "ib" || tok == "iw" || tok == "id" || tok == "io":
			e.Imm = tok
		case hexByte.MatchString(tok):
			v, _ := strconv.ParseUint(tok, 16, 8)
			isPrefix := v == 0x66 || v == 0xf0 || v == 0x65
			if isPrefix && len(e.Op) == 0 && !e.W {
				e.Prefix = append(e.Prefix, byte(v))
			} else {
				e.Op = append(e.Op, byte(v))
			}
		default:
			return nil, fmt.Errorf("%q in an encoding is not understood", tok)
		}
	}
	return e, e.check(ops)
}

// parseJump parses "74 cb / 0F 84 cd", either half alone allowed.
func (e *Encoding) parseJump(text string) error {
	for form := range strings.SplitSeq(text, " / ") {
		f := strings.Fields(form)
		var code []byte
		for _, tok := range f[:len(f)-1] {
			v, err := strconv.ParseUint(tok, 16, 8)
			if err != nil {
				return fmt.Errorf("%q is not an opcode byte", tok)
			}
			code = append(code, byte(v))
		}
		switch {
		case f[len(f)-1] == "cb" && len(code) == 1:
			e.Short = code[0]
		case f[len(f)-1] == "cd" && len(code) > 0:
			e.Long = code
		default:
			return fmt.Errorf("%q is not a jump", form)
		}
	}
	return nil
}

// check compares the encoding with the operands of the instruction.
func (e *Encoding) check(ops []Operand) error {
	if len(e.Op) == 0 {
		return fmt.Errorf("no opcode")
	}
	if e.Digit == -1 && e.Order == "" {
		return fmt.Errorf("/r needs MR or RM")
	}
	want := 0
	switch {
	case e.Order == "RMV":
		want = 3
	case e.Digit == -1:
		want = 2
	case e.Digit >= 0 || e.PlusR:
		want = 1
	}
	if e.Imm != "" {
		want++
		if len(ops) == 0 || ops[len(ops)-1].Kind != Immediate {
			return fmt.Errorf("%s without an immediate operand", e.Imm)
		}
	}
	if len(ops) < want {
		return fmt.Errorf("the encoding needs %d operands, the instruction has %d", want, len(ops))
	}
	return nil
}

// Operands returns the operands in ModRM.rm (or the opcode), ModRM.reg and
// VEX.vvvv; nil where there is none.
func (s *Step) Operands() (rm, reg, v *Operand) {
	e, ops := s.Enc, s.Ops
	switch {
	case e.Order == "MR":
		return &ops[0], &ops[1], nil
	case e.Order == "RM":
		return &ops[1], &ops[0], nil
	case e.Order == "RMV":
		return &ops[1], &ops[0], &ops[2]
	case e.Digit >= 0 || e.PlusR:
		return &ops[0], nil, nil
	}
	return nil, nil, nil
}

// Immediate returns the immediate operand, or nil.
func (s *Step) Immediate() *Operand {
	if s.Enc.Imm == "" {
		return nil
	}
	return &s.Ops[len(s.Ops)-1]
}

// ImmSize returns the bytes of the immediate.
func (e *Encoding) ImmSize() int {
	return map[string]int{"": 0, "ib": 1, "iw": 2, "id": 4, "io": 8}[e.Imm]
}

// MemoryOperand returns the operand that accesses memory, or nil.
func (s *Step) MemoryOperand() *Operand {
	rm, _, _ := s.Operands()
	if rm != nil && rm.Kind == Memory {
		return rm
	}
	return nil
}

// NeedsRex tells whether registers dst and src (x86 numbers) make a REX byte
// necessary.
func (s *Step) NeedsRex(dst, src uint8) bool {
	if s.Enc.W || s.Enc.Rex {
		return true
	}
	num := func(r Reg) uint8 { return [...]uint8{r.Num, dst, src}[r.Field] }
	rm, reg, _ := s.Operands()
	for _, op := range []*Operand{rm, reg} {
		if op == nil || op.GS {
			continue
		}
		n := num(op.Reg)
		if n >= 8 || op.Idx != nil && num(*op.Idx) >= 8 {
			return true
		}
		if op.Kind == Register && op.Size == 8 && n >= 4 && n < 8 {
			return true // spl, bpl, sil, dil
		}
	}
	return false
}

// Head returns the bytes of the instruction up to the displacement: prefixes,
// REX (if rex says so), opcode, ModRM and SIB. wide selects 32 bits of
// displacement where the offset is one; modrm is the index of ModRM, or -1.
func (s *Step) Head(dst, src uint8, rex, wide bool) (head []byte, modrm int) {
	e := s.Enc
	num := func(r Reg) uint8 { return [...]uint8{r.Num, dst, src}[r.Field] }
	rm, reg, v := s.Operands()
	var b, x, r uint8 // full register numbers for rm (or base), index, reg
	if rm != nil && !rm.GS {
		b = num(rm.Reg)
		if rm.Idx != nil {
			x = num(*rm.Idx)
		}
	}
	if e.Digit >= 0 {
		r = uint8(e.Digit)
	} else if reg != nil {
		r = num(reg.Reg)
	}
	head = append(head, e.Prefix...)
	if e.VEX {
		w := byte(0)
		if e.W {
			w = 0x80
		}
		head = append(head, 0xc4, (1-r>>3)<<7|0x40|(1-b>>3)<<5|2, w|(15-num(v.Reg))<<3|e.PP)
	} else if rex {
		w := byte(0)
		if e.W {
			w = 8
		}
		head = append(head, 0x40|w|r>>3<<2|x>>3<<1|b>>3)
	}
	head = append(head, e.Op...)
	if e.PlusR {
		head[len(head)-1] |= b & 7
	}
	if e.Digit == -2 {
		return head, -1
	}
	modrm = len(head)
	head = append(head, r&7<<3)
	switch {
	case rm.Kind == Register:
		head[modrm] |= 0xc0 | b&7
		return head, modrm
	case rm.GS:
		head[modrm] |= 4
		return append(head, 0x25), modrm
	}
	switch {
	case !rm.HasDisp:
	case rm.Off && !wide, rm.Name == "" && !rm.Off && rm.Const >= -128 && rm.Const <= 127:
		head[modrm] |= 0x40
	default:
		head[modrm] |= 0x80
	}
	switch {
	case rm.Idx != nil:
		head[modrm] |= 4
		head = append(head, x&7<<3|b&7)
	case b&7 == 4: // rsp or r12 as a base
		head[modrm] |= 4
		head = append(head, 0x24)
	default:
		head[modrm] |= b & 7
	}
	return head, modrm
}

// DispSize returns the bytes of displacement, offsets taken as 8 bits.
func (s *Step) DispSize() int {
	m := s.MemoryOperand()
	switch {
	case m == nil || !m.HasDisp && !m.GS:
		return 0
	case m.Off, m.Name == "" && m.Const >= -128 && m.Const <= 127:
		return 1
	}
	return 4
}
