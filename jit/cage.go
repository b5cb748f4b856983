package jit

import (
	"encoding/binary"
	"slices"
	"sort"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
)

// CompileCage compiles a whole program, lowered (package lower), for the cage.
// The code doesn't depend on where it lies. The machine enters it at offset 0,
// which is the main function:
//
//	rsp  native stack      r12  window's base     r9   slice of the budget
//	rbp  R10, a guest address                     rdi  R1, rsi R2
//
// and all other registers are 0. It returns with R0 in rax.
func CompileCage(p *bpf.Program, profile *Profile) (*Code, error) {
	code := new(Code)
	if err := code.CompileCage(p, profile); err != nil {
		return nil, err
	}
	return code, nil
}

// CompileCage does the same in the memory of an older Code, as
// [Code.Compile] does.
func (code *Code) CompileCage(p *bpf.Program, profile *Profile) error {
	funcs, err := bpf.Functions(p)
	if err != nil {
		return err
	}
	return code.CompileFunctions(p, funcs, profile)
}

// CompileFunctions is CompileCage for those who know already what bpf.Functions
// finds.
func (code *Code) CompileFunctions(p *bpf.Program, funcs []bpf.Func, profile *Profile) error {
	c := compilers.Get().(*compiler)
	c.profile, c.prog, c.cage = profile, p, true
	err := c.functions(code, funcs)
	c.release()
	if err != nil {
		return err
	}
	noteProbes(p, code, profile)
	linkCalls(p, code)
	return nil
}

// functions compiles the functions of the program.
func (c *compiler) functions(code *Code, funcs []bpf.Func) error {
	code.reset(len(c.prog.Insns))
	code.Funcs = slices.Grow(code.Funcs, len(funcs))
	for i := range funcs {
		f := &funcs[i]
		for i > 0 && len(code.Bytes)%16 != 0 {
			code.Bytes = append(code.Bytes, 0xcc)
		}
		c.part.Subprogram = i > 0 // all that the cage tells functions apart by
		c.fn = &c.part
		if err := c.function(code, f.Start, f.End); err != nil {
			return err
		}
	}
	return nil
}

// linkCalls resolves the calls between the program's functions.
func linkCalls(p *bpf.Program, code *Code) {
	for _, r := range code.Relocs {
		to := r.Slot + 1 + int(p.Insns[r.Slot].Imm)
		// The functions are in the order of their slots.
		i := sort.Search(len(code.Funcs), func(i int) bool { return code.Funcs[i].Start >= to })
		binary.LittleEndian.PutUint32(code.Bytes[r.Offset:], code.Funcs[i].Entry-(r.Offset+4))
	}
	code.Relocs = code.Relocs[:0]
}

// noteProbes adds the loads that read as zero where they fault.
func noteProbes(p *bpf.Program, code *Code, profile *Profile) {
	const probes = 0x0101010101010101 * uint64(bpf.Probe)
	// They are rare, or there are none at all, so it looks at 32 flags at a time.
	flags := p.Flags
	for len(flags) >= 32 {
		f := (*[32]bpf.Flag)(flags)
		if (eight(f[:8])|eight(f[8:16])|eight(f[16:24])|eight(f[24:]))&probes != 0 {
			start := len(p.Flags) - len(flags)
			noteProbesIn(p, code, profile, start, start+32)
		}
		flags = flags[32:]
	}
	for len(flags) >= 8 && eight(flags)&probes == 0 {
		flags = flags[8:]
	}
	if n := len(p.Flags); len(flags) < 8 && n >= 8 && eight(p.Flags[n-8:])&probes == 0 {
		return
	}
	noteProbesIn(p, code, profile, len(p.Flags)-len(flags), len(p.Flags))
}

// eight returns eight flags as a word; the Go compiler makes one load of it.
func eight(f []bpf.Flag) uint64 {
	_ = f[7]
	return uint64(f[0]) | uint64(f[1])<<8 | uint64(f[2])<<16 | uint64(f[3])<<24 |
		uint64(f[4])<<32 | uint64(f[5])<<40 | uint64(f[6])<<48 | uint64(f[7])<<56
}

// noteProbesIn does so for slots start to end. The access is the last x86
// instruction of the slot.
func noteProbesIn(p *bpf.Program, code *Code, profile *Profile, start, end int) {
	for i := start; i < end; i++ {
		if p.Flags[i]&bpf.Probe == 0 {
			continue
		}
		in := p.Insns[i]
		n := encoder.LastStep(encoder.RowOf(profile.Rows, in), in)
		code.Faults = append(code.Faults, Fault{
			Slot: i, Offset: code.Ends[i] - uint32(n), Len: uint8(n), Clear: int8(in.Dst()), Arena: -1,
		})
	}
}

// coldSize is the length of what stands behind the function for each CHARGE.
const coldSize = 19

// charge is a CHARGE of a function.
type charge struct {
	mark uint32 // which it is
	n    int32  // what it takes
	back uint32 // the end of its code
}

// writeCharges writes the jumps of the charges from next up to a mark, to where
// their cold code will be, the first from cold on. It returns the next one.
func (c *compiler) writeCharges(code *Code, next, stop int, cold uint32) int {
	marks, ends, b, slots := c.draft.Marks, code.Ends[c.start:], code.Bytes, code.charges
	for ; next < len(c.charges) && int(c.charges[next].mark) < stop; next++ {
		ch := &c.charges[next]
		slot := marks[ch.mark].Slot
		slots = append(slots, uint32(c.start)+slot)
		ch.back = ends[slot]
		b[ch.back-6], b[ch.back-5] = 0x0f, 0x82
		binary.LittleEndian.PutUint32(b[ch.back-4:], cold+uint32(next)*coldSize-ch.back)
	}
	code.charges = slots
	return next
}

// appendCold writes where the jumps of the CHARGEs go when the slice is spent.
func (c *compiler) appendCold(code *Code) {
	at := len(code.Bytes)
	end := at + len(c.charges)*coldSize
	b := slices.Grow(code.Bytes, end-at)[:end]
	for i := range c.charges {
		ch, next := &c.charges[i], at+coldSize
		code := (*[coldSize]byte)(b[at:next])
		*code = cold
		binary.LittleEndian.PutUint32(code[coldAsks:], uint32(ch.n))
		binary.LittleEndian.PutUint32(code[coldBack:], ch.back-uint32(next))
		at = next
	}
	code.Bytes = b
	code.Funcs[len(code.Funcs)-1].Limit = uint32(end)
}

// cold is what stands there for a CHARGE, but for two numbers of 32 bits.
var cold = func() (code [coldSize]byte) {
	b := append(code[:0],
		0x41, 0xbb, 0, 0, 0, 0, // mov r11d, n: what is asked for
		0x41, 0xff, 0x94, 0x24) // call [r12+...]: to the driver, back with a new slice
	b = le32(b, abi.ContextOffset+abi.OffSliceStub)
	copy(code[len(b):], []byte{0xe9}) // jmp back, behind the CHARGE
	return code
}()

// Where the numbers stand in cold.
const (
	coldAsks = 2
	coldBack = coldSize - 4
)
