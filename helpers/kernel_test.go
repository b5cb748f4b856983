package helpers

import (
	"encoding/binary"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/interp"
	"github.com/bpfjit/bpfjit/maps"
)

// on runs the same program on the live kernel and here. Loads of maps are
// put in by fill.
func (w *world) on(t *testing.T, insns []bpf.Insn, fill func(insns []bpf.Insn, ours bool)) (theirs, ours uint32) {
	t.Helper()
	copied := append([]bpf.Insn(nil), insns...)
	fill(copied, false)
	p, err := kernel.Load(&kernel.Spec{Type: kernel.Syscall, Flags: kernel.FlagSleepable, Insns: copied})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer p.Close()
	res, err := p.Run(kernel.RunOptions{Ctx: make([]byte, 8)})
	if err != nil {
		t.Fatal(err)
	}
	copied = append([]bpf.Insn(nil), insns...)
	fill(copied, true)
	prog, err := interp.Prepare(&bpf.Program{Insns: copied})
	if err != nil {
		t.Fatal(err)
	}
	got := prog.Run(w.inst, &interp.Config{R1: abi.CtxBase, Helper: Standard().Lookup, Env: w.env})
	w.inst.Reset(cage.WritesAll)
	if got.Cause() != nil {
		t.Fatal(got.Cause())
	}
	return res.Return, uint32(got.R0)
}

// TestKernelMaps does random operations on a map of the kernel and on one of
// ours, and compares what the helpers return and what the values become.
func TestKernelMaps(t *testing.T) {
	kernel.Require(t)
	rnd := testprog.Rand(testprog.Seed(t), 0)
	const entries = 4
	for _, typ := range []maps.Type{maps.Array, maps.Hash} {
		w := newWorld(t, "")
		theirs, err := kernel.NewMap(kernel.MapSpec{Type: kernel.MapType(typ), KeySize: 4, ValueSize: 8, MaxEntries: entries})
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		_, handle := w.newMap(t, maps.Spec{Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: entries})
		for step := range 300 {
			number := MapLookupElem + rnd.Int32N(3)
			flags := [...]int32{0, 1, 2, 3, -1}[rnd.IntN(5)]
			const mov, add, stw, stdw, ldxdw = 0xb7, 0x07, 0x62, 0x7a, 0x79
			insns := []bpf.Insn{
				{Op: abi.OpLdImm64, Regs: 1}, {},
				{Op: stw, Regs: 10, Off: -4, Imm: rnd.Int32N(entries + 2)},
				{Op: stdw, Regs: 10, Off: -16, Imm: int32(rnd.Uint32())},
				{Op: 0xbf, Regs: abi.Registers(2, 10)}, {Op: add, Regs: 2, Imm: -4},
				{Op: 0xbf, Regs: abi.Registers(3, 10)}, {Op: add, Regs: 3, Imm: -16},
				{Op: mov, Regs: 4, Imm: flags},
				{Op: abi.OpCall, Imm: number},
			}
			if number == MapLookupElem { // the value, or 77
				insns = append(insns,
					bpf.Insn{Op: 0x55, Regs: 0, Off: 2}, // if r0 != 0 goto +2
					bpf.Insn{Op: mov, Regs: 0, Imm: 77}, bpf.Insn{Op: abi.OpExit},
					bpf.Insn{Op: ldxdw, Regs: abi.Registers(0, 0)})
			}
			insns = append(insns, bpf.Insn{Op: abi.OpExit})
			kernelR0, r0 := w.on(t, insns, func(insns []bpf.Insn, ours bool) {
				if ours {
					insns[0].Imm = int32(handle)
				} else {
					insns[0].Regs, insns[0].Imm = abi.Registers(1, abi.Imm64MapFD), int32(theirs.FD())
				}
			})
			if kernelR0 != r0 {
				t.Fatalf("step %d: %v, helper %d, key %d, flags %d: %d, the kernel's %d", step, typ, number, insns[2].Imm, flags, int32(r0), int32(kernelR0))
			}
		}
	}
}

// hashed matches what may print a hash of a pointer in fewer digits than all.
var hashed = regexp.MustCompile(`[0-9]p`)

// TestKernelPrintk compares the length that trace_printk returns for random
// formats. The text goes to the kernel's trace buffer.
func TestKernelPrintk(t *testing.T) {
	kernel.Require(t)
	rnd := testprog.Rand(testprog.Seed(t), 0)
	pieces := []string{"%", "%", "%", "d", "u", "x", "X", "i", "l", "ll", "c", "s", "p", "px", "pK", "pI4", "pi4", "pi6", "pI6", "pks",
		"5", "-", "0", "+", " ", "12", "|", "a", "\n", "%%", "\x80", "h", ".", "%s|", "%lx", "%5d"}
	accepted := 0
	const formats = 400
	for range formats {
		var f strings.Builder
		for range 1 + rnd.IntN(8) {
			f.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		w := newWorld(t, "")
		format := append([]byte(f.String()), 0)
		n := len(format)
		for len(format)%8 != 0 {
			format = append(format, 'z')
		}
		// The format lies below a string, which all arguments point to.
		size := len(format)
		const mov, add, stxdw = 0xbf, 0x07, 0x7b
		var insns []bpf.Insn
		for at, word := range append([]uint64{0x6f6c6c6568, 0}, words(format)...) {
			off := -16 + 8*at
			if at >= 2 {
				off = -16 - size + 8*(at-2)
			}
			insns = append(insns,
				bpf.Insn{Op: abi.OpLdImm64, Regs: 1, Imm: int32(word)}, bpf.Insn{Imm: int32(word >> 32)},
				bpf.Insn{Op: stxdw, Regs: abi.Registers(10, 1), Off: int16(off)})
		}
		insns = append(insns,
			bpf.Insn{Op: mov, Regs: abi.Registers(1, 10)}, bpf.Insn{Op: add, Regs: 1, Imm: int32(-16 - size)},
			bpf.Insn{Op: 0xb7, Regs: 2, Imm: int32(n)},
			bpf.Insn{Op: mov, Regs: abi.Registers(3, 10)}, bpf.Insn{Op: add, Regs: 3, Imm: -16})
		// Numbers need the same digits on both sides: half of the formats
		// get a number instead of the address, one where nobody has memory.
		if rnd.IntN(2) == 0 {
			insns[len(insns)-2] = bpf.Insn{Op: 0xb7, Regs: 3, Imm: 100}
			insns[len(insns)-1] = bpf.Insn{Op: 0x07, Regs: 3, Imm: rnd.Int32N(1<<15) - 200*rnd.Int32N(2)}
			if hashed.MatchString(f.String()) {
				continue
			}
		} else if strings.ContainsAny(f.String(), "dixuXpK5012") {
			continue
		}
		insns = append(insns,
			bpf.Insn{Op: mov, Regs: abi.Registers(4, 3)}, bpf.Insn{Op: mov, Regs: abi.Registers(5, 3)},
			bpf.Insn{Op: abi.OpCall, Imm: TracePrintk}, bpf.Insn{Op: abi.OpExit})
		theirs, ours := w.on(t, insns, func([]bpf.Insn, bool) {})
		if theirs != ours {
			t.Errorf("%q: %d, the kernel's %d", f.String(), int32(ours), int32(theirs))
		}
		if int32(ours) >= 0 {
			accepted++
		}
	}
	t.Logf("%d formats accepted", accepted)
	if accepted == 0 {
		t.Error(errors.New("no format was accepted"))
	}
}

// words cuts bytes into little-endian words.
func words(b []byte) (w []uint64) {
	for ; len(b) > 0; b = b[8:] {
		w = append(w, binary.LittleEndian.Uint64(b))
	}
	return w
}
