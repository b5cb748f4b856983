package jit

import (
	"encoding/binary"
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
	c := code.compiler()
	c.profile, c.prog, c.fn, c.cage = profile, p, &c.part, true
	code.reset(len(p.Insns), len(funcs))
	probes := hasProbes(p)
	var err error
	for i := 0; i < len(funcs) && err == nil; i++ {
		if i > 0 {
			code.over(Join)
			code.align()
		}
		f := &code.Funcs[i]
		f.Start, f.End = funcs[i].Start, funcs[i].End
		c.part.Subprogram = i > 0 // all that the cage tells functions apart by
		err = c.function(code, f)
	}
	c.release(code)
	if err != nil {
		return err
	}
	if probes {
		noteProbes(p, code, profile)
	}
	if len(code.Relocs) > 0 {
		linkCalls(p, code)
	}
	code.over(Join)
	return nil
}

// align fills up to where a function may begin.
func (code *Code) align() {
	for len(code.Bytes)%16 != 0 {
		code.Bytes = append(code.Bytes, 0xcc)
	}
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

// hasProbes tells whether any slot is marked as a Probe. They are rare, or there are none
// at all, so it looks at some flags at a time, the last of which may have been among those
// before.
func hasProbes(p *bpf.Program) bool {
	const many, few = 64, 8
	const probes = 0x0101010101010101 * uint64(bpf.Probe)
	n, seen := len(p.Flags), uint64(0)
	switch {
	case n >= many:
		for i := 0; i < n; i += many {
			f := (*[many]bpf.Flag)(p.Flags[min(i, n-many):])
			seen |= eight(f[:8]) | eight(f[8:16]) | eight(f[16:24]) | eight(f[24:32]) |
				eight(f[32:40]) | eight(f[40:48]) | eight(f[48:56]) | eight(f[56:])
		}
	case n >= few:
		for i := 0; i < n; i += few {
			seen |= eight(p.Flags[min(i, n-few):])
		}
	default:
		for _, f := range p.Flags {
			seen |= uint64(f)
		}
	}
	return seen&probes != 0
}

// noteProbes adds the loads that read as zero where they fault. The access is the last
// x86 instruction of the slot.
func noteProbes(p *bpf.Program, code *Code, profile *Profile) {
	for i, f := range p.Flags {
		if f&bpf.Probe == 0 {
			continue
		}
		in := p.Insns[i]
		n := encoder.LastStep(encoder.RowOf(profile.Rows, in), in)
		code.Faults = append(code.Faults, Fault{
			Slot: i, Offset: code.Ends[i] - uint32(n), Len: uint8(n), Clear: int8(in.Dst()), Arena: -1,
		})
	}
}

// eight returns eight flags as a word; the Go compiler makes one load of it.
func eight(f []bpf.Flag) uint64 {
	_ = f[7]
	return uint64(f[0]) | uint64(f[1])<<8 | uint64(f[2])<<16 | uint64(f[3])<<24 |
		uint64(f[4])<<32 | uint64(f[5])<<40 | uint64(f[6])<<48 | uint64(f[7])<<56
}

// coldSize is the length of what stands behind the function for each CHARGE.
const coldSize = 19

// charge is a CHARGE of a function.
type charge struct {
	mark uint32 // which it is
	n    int32  // what it takes
}

// opJbLong is 0F 82, the opcode of jb, unsigned less, in the long form.
const opJbLong = 0x820f

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
