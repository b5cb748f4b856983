package interp

import (
	"encoding/binary"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// The oracle of this file knows the instructions by the names of their forms,
// and computes with big integers. It shares nothing with the interpreter.

// values are the operands of interest.
var values = []uint64{
	0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
	math.MaxInt32, 1 << 31, math.MaxUint32, 1 << 32, 1<<32 + 1, 0x0123456789abcdef, 0xfedcba9876543210,
	math.MaxInt64, 1 << 63, 1<<63 + 1, math.MaxUint64 - 6, math.MaxUint64 - 1, math.MaxUint64,
	0xffffffff_00000000, 0x00000001_80000000, 0x7fffffff_80000000,
}

// number is v's low bits as an integer.
func number(v uint64, bits uint, signed bool) *big.Int {
	n := new(big.Int).SetUint64(v)
	n.And(n, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1)))
	if signed && n.Bit(int(bits-1)) == 1 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), bits))
	}
	return n
}

// register is the low bits of an integer, zero-extended.
func register(n *big.Int, bits uint) uint64 {
	m := new(big.Int).Lsh(big.NewInt(1), bits)
	return new(big.Int).Mod(n, m).Uint64()
}

// arithmetic is the oracle of RFC 9669, section 4.1.
func arithmetic(op string, bits uint, x, y uint64) uint64 {
	unsigned := func(v uint64) *big.Int { return number(v, bits, false) }
	signed := func(v uint64) *big.Int { return number(v, bits, true) }
	count := uint(y % uint64(bits))
	z := new(big.Int)
	switch op {
	case "add":
		z.Add(unsigned(x), unsigned(y))
	case "sub":
		z.Sub(unsigned(x), unsigned(y))
	case "mul":
		z.Mul(unsigned(x), unsigned(y))
	case "div":
		if unsigned(y).Sign() != 0 {
			z.Quo(unsigned(x), unsigned(y))
		}
	case "sdiv":
		if signed(y).Sign() != 0 {
			z.Quo(signed(x), signed(y))
		}
	case "mod":
		if z = unsigned(x); unsigned(y).Sign() != 0 {
			z.Rem(unsigned(x), unsigned(y))
		}
	case "smod":
		if z = signed(x); signed(y).Sign() != 0 {
			z.Rem(signed(x), signed(y))
		}
	case "or":
		z.Or(unsigned(x), unsigned(y))
	case "and":
		z.And(unsigned(x), unsigned(y))
	case "xor":
		z.Xor(unsigned(x), unsigned(y))
	case "lsh":
		z.Lsh(unsigned(x), count)
	case "rsh":
		z.Rsh(unsigned(x), count)
	case "arsh":
		z.Rsh(signed(x), count)
	case "mov":
		z = unsigned(y)
	case "neg":
		z.Neg(unsigned(x))
	case "movsx8":
		z = number(y, 8, true)
	case "movsx16":
		z = number(y, 16, true)
	case "movsx32":
		z = number(y, 32, true)
	default:
		panic("no oracle for " + op)
	}
	return register(z, bits)
}

// byteOrder is the oracle of section 4.2 for a little-endian machine.
func byteOrder(op string, x uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], x)
	n := map[string]int{"16": 2, "32": 4, "64": 8}[strings.TrimLeft(op, "abelpsw")]
	var out [8]byte
	for k := range n {
		if strings.HasPrefix(op, "le") {
			out[k] = b[k]
		} else {
			out[k] = b[n-1-k]
		}
	}
	return binary.LittleEndian.Uint64(out[:])
}

// condition is the oracle of section 4.3.
func condition(op string, bits uint, x, y uint64) bool {
	if op == "jset" {
		return new(big.Int).And(number(x, bits, false), number(y, bits, false)).Sign() != 0
	}
	signed := strings.HasPrefix(op, "js")
	c := number(x, bits, signed).Cmp(number(y, bits, signed))
	switch strings.TrimPrefix(strings.TrimPrefix(op, "j"), "s") {
	case "eq":
		return c == 0
	case "ne":
		return c != 0
	case "gt":
		return c > 0
	case "ge":
		return c >= 0
	case "lt":
		return c < 0
	case "le":
		return c <= 0
	}
	panic("no oracle for " + op)
}

// constants are the immediates of interest for an instruction.
func constants() []int32 {
	var ks []int32
	for _, v := range values {
		if v == uint64(int64(int32(v))) || v <= math.MaxUint32 {
			ks = append(ks, int32(v))
		}
	}
	return ks
}

// TestEveryForm executes every form that a source program may have, and
// compares each with an oracle over all pairs of interesting operands.
func TestEveryForm(t *testing.T) {
	inst := newInstance(t, cage.Plain, make([]byte, 64))
	elsewhere := map[string]bool{ // in TestPrograms and beside it
		"jmp.ja": true, "jmp.gotol": true, "jmp.call": true, "jmp.call_local": true, "jmp.callx": true,
		"jmp.exit": true, "jmp.may_goto": true, "ld.imm64": true, "ld.func": true, "ld.second": true,
	}
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if form.Source != tables.Allowed || elsewhere[form.Name] {
			continue
		}
		name := strings.Split(form.Name, ".")
		t.Run(form.Name, func(t *testing.T) {
			switch name[0] {
			case "alu64", "alu32", "end", "jmp", "jmp32":
				testOperation(t, inst, form, name)
			case "ldx", "st", "stx", "atomic32", "atomic64", "load_acq", "store_rel":
				testMemory(t, form, name)
			default:
				t.Fatal("no test for this form")
			}
		})
	}
}

// testOperation runs
//
//	r2 op r1        or r2 op constant
//	r0 = r2
//	exit
//
// or, for a branch, r0 = 1 or 2. It runs with different and with equal
// registers.
func testOperation(t *testing.T, inst *cage.Instance, form *tables.FormInfo, name []string) {
	bits := uint(64)
	if name[0] == "alu32" || name[0] == "jmp32" {
		bits = 32
	}
	branch := form.Flow == tables.FlowBranch
	// load returns the program as a function of r2 and r1.
	load := func(insn bpf.Insn) func(x, y, want uint64) {
		p := &bpf.Program{Insns: []bpf.Insn{
			insn,
			{Op: 0xbf, Regs: abi.Registers(0, 2)}, // r0 = r2
			{Op: abi.OpExit},
		}}
		if branch {
			p.Insns = []bpf.Insn{
				insn,
				{Op: 0xb7, Imm: 1}, // r0 = 1
				{Op: abi.OpExit},
				{Op: 0xb7, Imm: 2},
				{Op: abi.OpExit},
			}
			p.Insns[0].Off = 2
		}
		prog := prepare(t, p)
		return func(x, y, want uint64) {
			t.Helper()
			got := prog.Run(inst, &Config{R1: y, R2: x})
			if got.Stop != abi.StopExit || got.R0 != want {
				t.Fatalf("%s with %#x, %#x: %+v, want r0 = %#x", bpf.Text(insn), x, y, got, want)
			}
		}
	}
	oracle := func(x, y uint64) uint64 {
		switch {
		case branch && condition(name[1], bits, x, y):
			return 2
		case branch:
			return 1
		case name[0] == "end":
			return byteOrder(name[1], x)
		}
		return arithmetic(name[1], bits, x, y)
	}
	insn := bpf.Insn{Op: form.Op, Off: int16(form.Off.Value), Imm: form.Imm.Value, Regs: abi.Registers(2, 0)}
	switch {
	case form.Imm.Use == tables.UseConstant:
		for _, k := range constants() {
			insn.Imm = k
			run := load(insn)
			for _, x := range values {
				run(x, 0xdead, oracle(x, uint64(int64(k))))
			}
		}
	case form.Src.Use == tables.UseRead:
		insn.Regs = abi.Registers(2, 2)
		run := load(insn)
		for _, x := range values {
			run(x, 0xdead, oracle(x, x))
		}
		insn.Regs = abi.Registers(2, 1)
		run = load(insn)
		for _, x := range values {
			for _, y := range values {
				run(x, y, oracle(x, y))
			}
		}
	default:
		run := load(insn)
		for _, x := range values {
			run(x, 0xdead, oracle(x, 0))
		}
	}
}

// machine is what the oracle of memory operations computes on.
type machine struct {
	Mem          [64]byte
	R0, Dst, Src uint64
	Fault        bool
}

// memoryOracle executes a memory instruction whose operand begins at Mem[at].
// Dst and Src hold the registers' contents; the one that is the address keeps
// it.
func memoryOracle(m *machine, name []string, size, at int, imm int32) {
	get := func() uint64 {
		var b [8]byte
		copy(b[:], m.Mem[at:at+size])
		return binary.LittleEndian.Uint64(b[:])
	}
	put := func(v uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		copy(m.Mem[at:at+size], b[:size])
	}
	bits := uint(8 * size)
	aligned := at%size == 0
	switch name[0] {
	case "ldx":
		m.Dst = get()
		if name[1] == "memsx" {
			m.Dst = register(number(get(), bits, true), 64)
		}
		return
	case "st":
		put(uint64(int64(imm)))
		return
	case "stx":
		put(m.Src)
		return
	}
	if !aligned {
		m.Fault = true
		return
	}
	old := get()
	switch name[0] {
	case "load_acq":
		m.Dst = old
		return
	case "store_rel":
		put(m.Src)
		return
	}
	op, fetch := strings.CutPrefix(name[1], "fetch_")
	switch op {
	case "xchg":
		put(m.Src)
		fetch = true
	case "cmpxchg":
		if number(m.R0, bits, false).Cmp(number(old, bits, false)) == 0 {
			put(m.Src)
		}
		m.R0 = old
	default:
		put(arithmetic(op, bits, old, m.Src))
	}
	if fetch {
		m.Src = old
	}
}

// testMemory runs, with R1 = memory, R2 = some value,
//
//	r0 = constant
//	the instruction, on r1 and r2
//	call 3, which sees r1, r2 and r0 in r3
func testMemory(t *testing.T, form *tables.FormInfo, name []string) {
	const base, off = abi.MemBase, 24
	size := abi.AccessSize(form.Op)
	rnd := testprog.Rand(testprog.Seed(t), 0)
	load := form.Src.Use == tables.UseAddress
	for round := range 200 {
		m := machine{}
		for k := range m.Mem {
			m.Mem[k] = byte(rnd.Uint32())
		}
		value := values[rnd.IntN(len(values))]
		delta := rnd.IntN(2) * rnd.IntN(8)
		at := off + delta
		m.R0 = rnd.Uint64()
		if round%2 == 0 { // what a compare-and-exchange finds
			m.R0 = binary.LittleEndian.Uint64(m.Mem[at:])
		}
		insn := bpf.Insn{Op: form.Op, Off: int16(off), Imm: form.Imm.Value, Regs: abi.Registers(1, 2)}
		m.Dst, m.Src = uint64(base+delta), value
		if load {
			insn.Regs = abi.Registers(2, 1)
			m.Dst, m.Src = value, uint64(base+delta)
		}
		if form.Src.Fixed() {
			insn.Regs, m.Src = abi.Registers(1, 0), value
		}
		if form.Imm.Use == tables.UseConstant {
			insn.Imm = int32(value)
		}
		inst := newInstance(t, cage.Plain, m.Mem[:])
		p := &bpf.Program{Insns: []bpf.Insn{
			{Op: abi.OpLdImm64, Imm: int32(m.R0)}, {Imm: int32(m.R0 >> 32)},
			insn,
			{Op: 0xbf, Regs: abi.Registers(3, 0)}, // r3 = r0
			{Op: abi.OpCall, Imm: 3},
			{Op: abi.OpExit},
		}}
		got := machine{R0: m.R0, Dst: m.Dst, Src: m.Src}
		memoryOracle(&m, name, size, at, insn.Imm)
		res := prepare(t, p).Run(inst, &Config{R1: uint64(base + delta), R2: value, Helper: func(uint32) abi.HelperFunc {
			return func(_ abi.Env, r1, r2, r3, _, _ uint64) (uint64, error) {
				got.R0, got.Dst, got.Src = r3, r1, r2
				if load {
					got.Dst, got.Src = r2, r1
				}
				return 0, nil
			}
		}})
		copy(got.Mem[:], inst.Mem())
		got.Fault = res.Stop == abi.StopFault
		if d := cmp.Diff(m, got); d != "" {
			t.Fatalf("%s, %d bytes off: (-want +got)\n%s", bpf.Text(insn), delta, d)
		}
	}
}

// TestSameRegister: an atomic on its own address register uses the address
// before it changes.
func TestSameRegister(t *testing.T) {
	inst := newInstance(t, cage.Plain, make([]byte, 8))
	prog := prepare(t, testprog.Parse(t, "r1 = atomic_fetch_add((u64 *)(r1 + 0), r1)\nr0 = r1\nexit"))
	compare(t, prog.Run(inst, &Config{R1: abi.MemBase}), exit(0, 3))
	if v := binary.LittleEndian.Uint64(inst.Mem()); v != abi.MemBase {
		t.Errorf("memory is %#x", v)
	}
	compare(t, prepare(t, testprog.Parse(t, "r1 = *(u64 *)(r1 + 0)\nr0 = r1\nexit")).Run(inst, &Config{R1: abi.MemBase}), exit(abi.MemBase, 3))
	compare(t, prepare(t, testprog.Parse(t, "r0 = r1\nr0 = cmpxchg_64(r1 + 0, r0, r0)\nexit")).Run(inst, &Config{R1: abi.MemBase}), exit(abi.MemBase, 3))
}
