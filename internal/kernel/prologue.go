package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// Params is what the kernel's JIT knew of a function besides its
// instructions, as far as its prologue shows it.
type Params struct {
	// StackDepth in bytes, a multiple of 8: the verifier's, rounded up. 0 for
	// a function with a private stack.
	StackDepth int
	// Subprog says that the function isn't the main program.
	Subprog bool
	// TailCallReachable says that the function keeps the counter of tail calls.
	TailCallReachable bool
	// ExceptionBoundary says that all callee-saved registers are saved, since
	// bpf_throw may come back here.
	ExceptionBoundary bool
	// ExceptionCallback says that the function is called by bpf_throw.
	ExceptionCallback bool
	// Arena says that r12 holds ArenaBase, where the kernel maps the arena.
	// ArenaUser is where user space does; the prologue doesn't show that.
	Arena                bool
	ArenaBase, ArenaUser uint64
	// PrivateStack says that r9 is the frame pointer; PrivateFrame is what it
	// is loaded with before the per-cpu offset is added.
	PrivateStack bool
	PrivateFrame uint64
	// Length of the prologue in bytes.
	Length int
}

// The byte sequences of a prologue (spec of the kernel's JIT, section 1.3).
//
//	[endbr64] nop5 xor|nop3 push rbp; mov rbp, rsp [endbr64]
//	[sub rsp, depth] [counter of tail calls] [pushes] [r12 = arena] [r9 = frame]
var (
	bytesEndbr       = []byte{0xf3, 0x0f, 0x1e, 0xfa}
	bytesNop5        = []byte{0x0f, 0x1f, 0x44, 0x00, 0x00}
	bytesNop3        = []byte{0x0f, 0x1f, 0x00}
	bytesXorRAX      = []byte{0x48, 0x31, 0xc0}
	bytesFrame       = []byte{0x55, 0x48, 0x89, 0xe5}
	bytesThrown      = []byte{0x48, 0x89, 0xf4, 0x48, 0x89, 0xd5, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x5b, 0x41, 0x5c, 0x48, 0x89, 0xec}
	bytesSubRSP      = []byte{0x48, 0x81, 0xec}
	bytesCounterMain = []byte{0x48, 0x83, 0xf8, 0x21, 0x77, 0x06, 0x50, 0x48, 0x89, 0xe0, 0xeb, 0x01, 0x50, 0x50}
	bytesCounterSub  = []byte{0x50, 0x50}
	bytesPushR12     = []byte{0x41, 0x54}
	bytesGSAdd       = []byte{0x65, 0x4c, 0x03, 0x0c, 0x25}
	// Pushes of the callee-saved registers, R6 to R9.
	bytesPush = [4][]byte{{0x53}, {0x41, 0x55}, {0x41, 0x56}, {0x41, 0x57}}
)

// cursor walks over machine code.
type cursor struct {
	code []byte
	at   int
}

// take moves past b if it stands here.
func (c *cursor) take(b []byte) bool {
	if bytes.HasPrefix(c.code[c.at:], b) {
		c.at += len(b)
		return true
	}
	return false
}

// loads moves past a load of a 64-bit constant into r8 + r, if one stands
// here, whatever its form: xor, 32 bits, sign-extended 32 bits, or 64 bits.
func (c *cursor) loads(r byte) (v uint64, ok bool) {
	rest := c.code[c.at:]
	field := func(n int) bool { return len(rest) >= n }
	switch {
	case c.take([]byte{0x45, 0x31, 0xc0 | r<<3 | r}):
		return 0, true
	case field(6) && bytes.HasPrefix(rest, []byte{0x41, 0xb8 + r}):
		c.at += 6
		return uint64(binary.LittleEndian.Uint32(rest[2:])), true
	case field(7) && bytes.HasPrefix(rest, []byte{0x49, 0xc7, 0xc0 + r}):
		c.at += 7
		return uint64(int64(int32(binary.LittleEndian.Uint32(rest[3:])))), true
	case field(10) && bytes.HasPrefix(rest, []byte{0x49, 0xb8 + r}):
		c.at += 10
		return binary.LittleEndian.Uint64(rest[2:]), true
	}
	return 0, false
}

// calleeSaved says which of R6 to R9 occur in a register field of insns: those
// are the ones that the prologue saves (section 1.2).
func calleeSaved(insns []abi.Insn) (used [4]bool) {
	for _, in := range insns {
		for _, r := range [2]uint8{in.Dst(), in.Src()} {
			if r >= abi.R6 && r <= abi.R9 {
				used[r-abi.R6] = true
			}
		}
	}
	return used
}

// ParsePrologue reads back from a function's machine code what the JIT knew.
// insns are the function's, subprog says that it isn't the first one.
func ParsePrologue(code []byte, insns []abi.Insn, subprog bool) (Params, error) {
	p := Params{Subprog: subprog}
	c := &cursor{code: code}
	c.take(bytesEndbr)
	if !c.take(bytesNop5) {
		return p, fmt.Errorf("kernel: prologue: no patchable entry in % x", head(code))
	}
	switch {
	case c.take(bytesXorRAX):
		p.TailCallReachable = true
	case c.take(bytesNop3):
	default:
		return p, fmt.Errorf("kernel: prologue: unknown third item in % x", head(code))
	}
	switch {
	case c.take(bytesFrame):
	case c.take(bytesThrown):
		p.ExceptionCallback = true
	default:
		return p, fmt.Errorf("kernel: prologue: no frame in % x", head(code))
	}
	c.take(bytesEndbr)
	if c.take(bytesSubRSP) {
		if c.at+4 > len(code) {
			return p, fmt.Errorf("kernel: prologue ends early: % x", code)
		}
		p.StackDepth = int(binary.LittleEndian.Uint32(code[c.at:]))
		c.at += 4
	}
	switch {
	case p.TailCallReachable:
		if !c.take(bytesCounterMain) {
			return p, fmt.Errorf("kernel: prologue: no counter of tail calls in % x", head(code))
		}
	case subprog && c.take(bytesCounterSub):
		p.TailCallReachable = true
	}
	if err := p.pushes(c, insns); err != nil {
		return p, err
	}
	if p.Arena {
		p.ArenaBase, _ = c.loads(4)
	}
	if v, ok := c.privateFrame(); ok {
		p.PrivateStack, p.PrivateFrame = true, v
	}
	p.Length = c.at
	return p, nil
}

// pushes reads the saved registers. r12 is saved for an arena or by an
// exception boundary; the latter saves all others as well.
func (p *Params) pushes(c *cursor, insns []abi.Insn) error {
	used := calleeSaved(insns)
	if c.take(bytesPushR12) {
		all := *c
		complete := true
		for _, b := range bytesPush {
			complete = complete && all.take(b)
		}
		arena := all
		_, loaded := arena.loads(4)
		// Where a function uses all four registers and has an arena, a
		// boundary leaves no trace; it makes no difference either.
		p.ExceptionBoundary = complete && (!loaded || used != [4]bool{true, true, true, true})
		p.Arena = !complete || loaded
		if p.ExceptionBoundary {
			*c = all
			return nil
		}
	}
	for i, b := range bytesPush {
		if used[i] && !c.take(b) {
			return fmt.Errorf("kernel: prologue doesn't save R%d: % x", abi.R6+i, head(c.code))
		}
	}
	return nil
}

// privateFrame moves past the two instructions that load r9.
func (c *cursor) privateFrame() (uint64, bool) {
	ahead := *c
	v, ok := ahead.loads(1)
	if !ok || !ahead.take(bytesGSAdd) || ahead.at+4 > len(ahead.code) {
		return 0, false
	}
	c.at = ahead.at + 4
	return v, true
}

func head(code []byte) []byte { return code[:min(len(code), 48)] }
