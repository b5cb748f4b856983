//go:build linux && amd64 && !purego

package bpfjit_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/machine"
	"github.com/bpfjit/bpfjit/tables"
)

// TestHostile runs programs that mean harm, as machine code and in the
// interpreter, with the same result: wild ones, wild ones with bits flipped,
// and random bytes, as far as the check lets them through. Their windows lie
// between others whose memory is watched; so is memory of Go. BPFJIT_PROGRAMS
// is how many run; those that are refused don't count.
func TestHostile(t *testing.T) {
	if err := machine.Check(); err != nil {
		t.Skip(err)
	}
	n := uint64(runs(t, 2000))
	seed := testprog.Seed(t)
	below := newCanary(t, 2)
	hostiles := make([]*hostile, runtime.GOMAXPROCS(0))
	for k := range hostiles {
		hostiles[k] = newHostile(t) // takes a window
	}
	above := newCanary(t, 2)
	var next, ran, refused atomic.Uint64
	var workers sync.WaitGroup
	for _, h := range hostiles {
		workers.Go(func() {
			for ran.Load() < n && !t.Failed() {
				i := next.Add(1) - 1
				name, insns, mem := makeHostile(seed, i)
				if insns == nil {
					refused.Add(1)
					continue
				}
				want := h.run(insns, mem, bpfjit.EngineInterpreter)
				got := h.run(insns, mem, bpfjit.EngineJIT)
				if want.R0 != got.R0 || want.Error != got.Error || want.Refused != got.Refused || !bytes.Equal(want.Mem, got.Mem) {
					t.Errorf("%s: (-interpreter +machine code)\n%s\n%s", name, cmp.Diff(want, got), listing(insns))
					return
				}
				if want.Refused {
					refused.Add(1)
				} else {
					ran.Add(1)
				}
				if i%1000 == 0 {
					below.check(t)
					above.check(t)
				}
			}
		})
	}
	workers.Wait()
	below.check(t)
	above.check(t)
	t.Logf("%d programs ran and did the same, %d were refused", ran.Load(), refused.Load())
}

// hostile is what programs are run in: one space, so that its windows are used
// again and again.
type hostile struct {
	t      *testing.T
	space  *bpfjit.Space
	clock  uint64
	random uint32
}

func newHostile(t *testing.T) *hostile {
	h := &hostile{t: t, space: bpfjit.NewSpace()}
	t.Cleanup(func() {
		if err := h.space.Close(); err != nil {
			t.Error(err)
		}
	})
	h.run([]abi.Insn{{Op: abi.OpExit}}, nil, bpfjit.EngineJIT)
	return h
}

// harm is what a run leaves.
type harm struct {
	R0    uint64
	Mem   []byte
	Error string
	// Refused: it didn't run.
	Refused bool
}

func (h *hostile) run(insns []abi.Insn, mem []byte, engine bpfjit.Engine) (o harm) {
	h.clock, h.random = 0, 1
	p, err := bpfjit.CompileSource(&bpfjit.Source{Program: &bpf.Program{Insns: insns}}, &bpfjit.Options{
		Engine: engine, Space: h.space, Budget: 1 << 14,
		Clock:  func() uint64 { h.clock++; return h.clock },
		Random: func() uint32 { h.random = h.random*1664525 + 1013904223; return h.random },
	})
	if err != nil {
		return harm{Error: "compile: " + err.Error(), Refused: true}
	}
	defer p.Close()
	o.Mem = slices.Clone(mem)
	if o.R0, err = p.Run(o.Mem); err != nil {
		o.Error = err.Error()
		var e *bpfjit.RunError
		if errors.As(err, &e) { // the signal is the machine's own
			o.Error = fmt.Sprintf("slot %d, address %#x: %v", e.Offset, e.Addr, e.Err)
		}
		if errors.Is(err, bpfjit.ErrClosed) || errors.Is(err, bpfjit.ErrBusy) {
			h.t.Errorf("%v", err)
		}
	}
	return o
}

// makeHostile makes program i of a seed; insns is nil if that is none.
func makeHostile(seed, i uint64) (name string, insns []abi.Insn, mem []byte) {
	r := testprog.Rand(seed, i)
	if i%4 == 3 {
		return fmt.Sprintf("random bytes seed=%d i=%d", seed, i), randomBytes(r), make([]byte, r.IntN(5000))
	}
	p := testprog.Wild(seed, i, testprog.Limits{MaxSize: 200})
	if i%4 != 2 {
		return p.Name, p.Insns, p.Packet
	}
	insns = slices.Clone(p.Insns)
	for range 1 + r.IntN(10) {
		k := r.IntN(len(insns))
		old := insns[k]
		b := bpf.Encode(insns[k : k+1])
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		flipped, err := bpf.Decode(b)
		if err != nil {
			continue
		}
		insns[k] = flipped[0]
		if bpf.Check(&bpf.Program{Insns: insns}, bpf.Source) != nil {
			insns[k] = old
		}
	}
	return p.Name + ", bits flipped", insns, p.Packet
}

// randomBytes makes a program of slots whose opcodes exist and whose other
// bytes are random or extreme, and replaces those that the check refuses.
func randomBytes(r *rand.Rand) []abi.Insn {
	slot := func() abi.Insn {
		in := abi.Insn{
			Op:   tables.Forms[1+r.IntN(int(tables.NumForms)-1)].Op,
			Regs: abi.Registers(uint8(r.IntN(11)), uint8(r.IntN(11))),
			Off:  int16(r.Uint32()), Imm: int32(r.Uint32()),
		}
		if r.IntN(2) == 0 {
			in.Off = []int16{0, 0, 0, 1, -1, 8, -8, -32768, 32767}[r.IntN(9)]
		}
		if r.IntN(2) == 0 {
			in.Imm = []int32{0, 0, 0, 1, -1, 5, 7, 8, 1 << 30, -1 << 31, 1<<31 - 1}[r.IntN(11)]
		}
		if r.IntN(3) == 0 {
			in.Regs &= 15
		}
		return in
	}
	insns := make([]abi.Insn, 1+r.IntN(30))
	for k := range insns {
		insns[k] = slot()
	}
	insns = append(insns, abi.Insn{Op: abi.OpExit})
	for range 200 {
		err := bpf.Check(&bpf.Program{Insns: insns}, bpf.Source)
		if err == nil {
			return insns
		}
		var e *bpf.Error
		if !errors.As(err, &e) || e.Slot < 0 || e.Slot >= len(insns)-1 {
			return nil
		}
		insns[e.Slot] = slot()
	}
	return nil
}

func listing(insns []abi.Insn) string {
	var b bytes.Buffer
	p := &bpf.Program{Insns: insns}
	for k := range insns {
		fmt.Fprintf(&b, "%d: %s\n", k, p.Text(k))
	}
	return b.String()
}

// canary is memory that nobody has any business with: windows, their shared
// memory, and Go's.
type canary struct {
	parts [][]byte
}

const canaryByte = 0xa5

func newCanary(t *testing.T, windows int) *canary {
	c := &canary{parts: [][]byte{make([]byte, 1<<20)}}
	space := &cage.Space{}
	addr, err := space.Alloc(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := space.Bytes(addr, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	c.parts = append(c.parts, shared)
	for range windows {
		i, err := space.NewInstance(cage.Window)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { i.Close() })
		if err := i.SetMem(1 << 16); err != nil {
			t.Fatal(err)
		}
		c.parts = append(c.parts, i.Mem(), i.Ctx(), i.Stack())
	}
	t.Cleanup(func() { space.Close() })
	for _, p := range c.parts {
		for k := range p {
			p[k] = canaryByte
		}
	}
	return c
}

func (c *canary) check(t *testing.T) {
	for n, p := range c.parts {
		if k := slices.IndexFunc(p, func(b byte) bool { return b != canaryByte }); k >= 0 {
			t.Errorf("canary %d was touched at %d of %d", n, k, len(p))
		}
	}
}
