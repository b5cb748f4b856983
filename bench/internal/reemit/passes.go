package reemit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bpfjit/bpfjit/abi"
)

const (
	maxPasses = 20
	padFrom   = 15 // from this pass on jumps don't get shorter
	estimate  = 64 // bytes a slot, before the first pass
	maxShort  = 123
	minShort  = -128
)

// Compiler compiles programs in memory that it uses again.
type Compiler struct {
	Code []byte
	// Calls are the offsets of the calls' distances, which are 0.
	Calls  []uint32
	Passes int

	insns []abi.Insn
	addrs []int32 // addrs[i+1] is the offset behind slot i
	used  [12]bool
	exit  int32 // offset of the epilogue
	first bool  // no EXIT was met in this pass
	pad   bool
}

var errPasses = errors.New("the length doesn't settle")

// Compile compiles a program of the translated dialect: as a main function
// with a frame of 512 bytes that no tail call reaches.
func (c *Compiler) Compile(insns []abi.Insn) error {
	n := len(insns)
	c.insns = insns
	c.addrs = slices.Grow(c.addrs[:0], n+1)[:n+1]
	for i := range c.addrs {
		c.addrs[i] = estimate * int32(i+1)
	}
	c.exit = estimate * int32(n+1)
	c.scan()
	old, settled := -1, false
	for pass := 0; pass < maxPasses || settled; pass++ {
		c.pad = pass >= padFrom
		changed, err := c.pass()
		if err != nil {
			return err
		}
		c.Passes = pass + 1
		if settled {
			if changed {
				return errPasses
			}
			return nil
		}
		settled = len(c.Code) == old
		old = len(c.Code)
	}
	return errPasses
}

// scan finds out which registers are saved.
func (c *Compiler) scan() {
	c.used = [12]bool{}
	for _, in := range c.insns {
		for _, r := range [2]uint8{in.Dst(), in.Src()} {
			if r < uint8(len(c.used)) {
				c.used[r] = true
			}
		}
	}
}

// pass translates the program, and reports whether an address changed.
func (c *Compiler) pass() (changed bool, err error) {
	c.Calls, c.first = c.Calls[:0], true
	b := c.prologue(c.Code[:0])
	c.addrs[0] = int32(len(b))
	for slot := 0; slot < len(c.insns); slot++ {
		var width int
		b, width, err = c.insn(b, slot)
		if err != nil {
			return false, fmt.Errorf("slot %d: %w", slot, err)
		}
		slot += width - 1
		changed = changed || c.addrs[slot+1] != int32(len(b))
		c.addrs[slot+1] = int32(len(b))
	}
	c.Code = b
	return changed, nil
}

// pushes and pops of R6 to R9: rbx, r13, r14, r15.
var (
	pushes = [4][]byte{{0x53}, {0x41, 0x55}, {0x41, 0x56}, {0x41, 0x57}}
	pops   = [4][]byte{{0x5b}, {0x41, 0x5d}, {0x41, 0x5e}, {0x41, 0x5f}}
)

func (c *Compiler) prologue(b []byte) []byte {
	b = append(b, 0x0f, 0x1f, 0x44, 0x00, 0x00,
		0x0f, 0x1f, 0x00,
		0x55,             // push rbp
		0x48, 0x89, 0xe5, // mov rbp, rsp
		0x48, 0x81, 0xec) // sub rsp, 512
	b = imm32(b, 512)
	for i, push := range pushes {
		if c.used[abi.R6+i] {
			b = append(b, push...)
		}
	}
	return b
}

func (c *Compiler) epilogue(b []byte) []byte {
	for i := 3; i >= 0; i-- {
		if c.used[abi.R6+i] {
			b = append(b, pops[i]...)
		}
	}
	return append(b, 0xc9, 0xc3) // leave; ret
}

// distance returns how far a jump of a slot over d slots goes, in bytes, as
// far as addresses are known.
func (c *Compiler) distance(slot int, d int32) int32 {
	return c.addrs[slot+1+int(d)] - c.addrs[slot+1]
}

// room is how many bytes the pass before had for what is left of a slot.
func (c *Compiler) room(b []byte, slot int) int32 { return c.addrs[slot+1] - int32(len(b)) }

// jcc jumps on a condition; cc is its short opcode.
func (c *Compiler) jcc(b []byte, slot int, cc byte) ([]byte, error) {
	d := c.distance(slot, int32(c.insns[slot].Off))
	if d < minShort || d > maxShort {
		return imm32(append(b, 0x0f, cc+0x10), d), nil
	}
	var err error
	if c.pad {
		b, err = nop(b, c.room(b, slot)-2, 4)
	}
	return append(b, cc, byte(d)), err
}

// jmp jumps over d bytes; over none, not at all.
func (c *Compiler) jmp(b []byte, slot int, d int32, toExit bool) ([]byte, error) {
	if d == 0 && !toExit {
		if c.pad {
			return nop(b, c.room(b, slot), 2, 5)
		}
		return b, nil
	}
	if d < minShort || d > maxShort {
		return imm32(append(b, 0xe9), d), nil
	}
	var err error
	if c.pad {
		b, err = nop(b, c.room(b, slot)-2, 3)
	}
	return append(b, 0xeb, byte(d)), err
}

// nop pads n bytes: none or one of those allowed.
func nop(b []byte, n int32, allowed ...int32) ([]byte, error) {
	if n == 0 {
		return b, nil
	}
	if !slices.Contains(allowed, n) {
		return b, fmt.Errorf("%w: no padding fits %d bytes", errPasses, n)
	}
	return append(b, nops[n]...), nil
}

var nops = [6][]byte{2: {0x66, 0x90}, 3: {0x0f, 0x1f, 0x00}, 4: {0x0f, 0x1f, 0x40, 0x00}, 5: {0x0f, 0x1f, 0x44, 0x00, 0x00}}
