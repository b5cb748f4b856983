package bpfjit_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// lookup is a program that calls the helper in R6 of its memory:
//
//	0   the helper's number     24  becomes R0
//	8   its R1                  32  becomes R1 to R5, or'ed
//	16  its R2                  40  becomes R9, which must be as before
//
// The key, 4 bytes at 48, is on the stack at -4, unless R2 says otherwise.
const lookup = `
	r6 = r1
	r9 = 12345
	r1 = *(u32 *)(r6 + 48)
	*(u32 *)(r10 - 4) = r1
	r7 = *(u64 *)(r6 + 0)
	r1 = *(u64 *)(r6 + 8)
	r2 = *(u64 *)(r6 + 16)
	r3 = 3
	r4 = 4
	r5 = 5
	callx r7
	*(u64 *)(r6 + 24) = r0
	r1 |= r2
	r1 |= r3
	r1 |= r4
	r1 |= r5
	*(u64 *)(r6 + 32) = r1
	*(u64 *)(r6 + 40) = r9
	r0 = 0
	exit`

// TestNativeHelpers: helpers that are native code do what their Go functions
// do, blinded or not: with maps of all kinds, keys anywhere, and handles of
// nothing.
func TestNativeHelpers(t *testing.T) {
	needJIT(t)
	seed := testprog.Seed(t)
	maps := map[string]*ebpf.MapSpec{
		"a": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 5},
		"b": {Type: ebpf.Array, KeySize: 4, ValueSize: 13, MaxEntries: 1000},
		"c": {Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 5},
		"d": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 4, MaxEntries: 2},
		"e": {Type: ebpf.Hash, KeySize: 600, ValueSize: 8, MaxEntries: 2},
		"f": {Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 20, MaxEntries: 3},
	}
	for n := range abi.NativeMaps { // more than native code knows
		maps[fmt.Sprintf("z%03d", n)] = &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(n + 1)}
	}
	type engine struct {
		name string
		opts bpfjit.Options
		in   *bpfjit.Instance
	}
	engines := []*engine{
		{name: "interpreter", opts: bpfjit.Options{Engine: bpfjit.EngineInterpreter}},
		{name: "machine code", opts: bpfjit.Options{Engine: bpfjit.EngineJIT}},
		{name: "blinded", opts: bpfjit.Options{Engine: bpfjit.EngineJIT, Blinding: true}},
	}
	for _, e := range engines {
		e.opts.Space, e.opts.CPU = bpfjit.NewSpace(), 77
		spec := &ebpf.CollectionSpec{Maps: maps, Programs: map[string]*ebpf.ProgramSpec{
			"none": {Name: "none", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}},
		}}
		c, err := bpfjit.LoadCollection(spec, &e.opts)
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint32(3) {
			key := binary.LittleEndian.AppendUint32(nil, n)
			if err := c.Maps["c"].Update(key, make([]byte, 8), ebpf.UpdateAny); err != nil {
				t.Fatal(err)
			}
		}
		e.opts.Name = "lookup"
		p, err := bpfjit.CompileBytes(assemble(t, lookup), &e.opts)
		if err != nil {
			t.Fatal(err)
		}
		if e.in, err = p.NewInstance(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(e.in.Close(), p.Close(), c.Close(), e.opts.Space.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	type result struct {
		R0, Args, Kept uint64
		Used           int64 // of the budget
		Error          string
	}
	run := func(e *engine, mem []byte) (r result) {
		mem = append([]byte(nil), mem...)
		if _, err := e.in.Run(mem); err != nil {
			r.Error = err.Error()
		}
		word := func(at int) uint64 { return binary.LittleEndian.Uint64(mem[at:]) }
		r.R0, r.Args, r.Kept, r.Used = word(24), word(32), word(40), e.in.Used()
		return r
	}
	found, absent, failed := 0, 0, 0
	for i := range uint64(runs(t, 20000)) {
		mem := lookupInput(testprog.Rand(seed, i))
		want := run(engines[0], mem)
		switch {
		case want.Error != "":
			failed++
		case want.R0 == 0:
			absent++
		default:
			found++
		}
		for _, e := range engines[1:] {
			if d := cmp.Diff(want, run(e, mem)); d != "" {
				t.Fatalf("input %d, % x: %s differs (-interpreter):\n%s", i, mem, e.name, d)
			}
		}
	}
	t.Logf("%d found, %d not, %d failed", found, absent, failed)
	if found == 0 || absent == 0 || failed == 0 {
		t.Error("one of them never happened")
	}
}

// lookupInput makes the memory of lookup.
func lookupInput(r *rand.Rand) []byte {
	oneOf := func(v ...uint64) uint64 { return v[r.IntN(len(v))] }
	near := func(v uint64) uint64 { return v + oneOf(0, 0, 0, 1, 2, 3, 4, 1<<64-1, 1<<64-2, 1<<64-3, 1<<64-4) }
	mem := make([]byte, 52)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(mem[at:], v) }
	put(0, oneOf(1, 1, 1, 1, 8, 1|1<<32))
	handle := abi.MapHandle(int(oneOf(0, 1, 2, 3, 4, 5, 6, 100, abi.NativeMaps-1, abi.NativeMaps, abi.NativeMaps+5, abi.NativeMaps+6, 7000)))
	if r.IntN(8) == 0 {
		handle = near(oneOf(handle, 0, abi.HandleBase, abi.FuncHandle(0), handle|1<<32, handle|1<<63, handle+abi.HandleStep/2, r.Uint64()))
	}
	put(8, handle)
	key := uint64(abi.StackTop - 4)
	if r.IntN(4) == 0 {
		key = near(oneOf(key, 0, abi.StackBase, abi.StackTop, abi.CtxBase, abi.MemBase, abi.MemBase+48, abi.MemBase+abi.PageSize,
			abi.SharedBase, 1<<32, key|1<<40, r.Uint64()))
	}
	put(16, key)
	binary.LittleEndian.PutUint32(mem[48:], uint32(near(oneOf(0, 0, 1, 2, 4, 999, 1000, 1<<32-1, uint64(r.Uint32())))))
	return mem
}

// TestNativeForeign: where the caller brings a helper of his own there is no
// native code instead.
func TestNativeForeign(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		own := func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 4242, nil }
		for _, number := range []asm.BuiltinFunc{asm.FnMapLookupElem, asm.FnGetSmpProcessorId} {
			p := program(t, e, fmt.Sprintf("r1 = 0x70000000 ll\nr2 = r10\nr2 += -4\n*(u32 *)(r10 - 4) = 0\ncall %d\nexit", number),
				func(o *bpfjit.Options) { o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{number: own} })
			if r0, err := p.Run(nil); r0 != 4242 || err != nil {
				t.Errorf("helper %d: %d, %v", number, r0, err)
			}
		}
	})
}

// TestNativeShared: programs of one Space that know different processors, in
// memory from one pool, and maps that were made after an instance.
func TestNativeShared(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		space := bpfjit.NewSpace()
		defer space.Close()
		in := func(cpu uint32) func(*bpfjit.Options) {
			return func(o *bpfjit.Options) { o.Space, o.CPU = space, cpu }
		}
		one, two := program(t, e, "call 8\nexit", in(1)), program(t, e, "call 8\nexit", in(2))
		find := program(t, e, "r1 = 0x70000000 ll\nr2 = r10\nr2 += -4\n*(u32 *)(r10 - 4) = 3\ncall 1\nexit", in(0))
		inst, err := find.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		defer inst.Close()
		if _, err := inst.Run(nil); !errors.Is(err, bpfjit.ErrFault) {
			t.Errorf("without a map: %v", err)
		}
		for range 3 {
			for want, p := range []*bpfjit.Program{1: one, 2: two} {
				if p == nil {
					continue
				}
				if r0, err := p.Run(nil); r0 != uint64(want) || err != nil {
					t.Errorf("processor %d: %d, %v", want, r0, err)
				}
			}
		}
		c, err := bpfjit.LoadCollection(&ebpf.CollectionSpec{
			Maps: map[string]*ebpf.MapSpec{"late": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4}},
			Programs: map[string]*ebpf.ProgramSpec{
				"none": {Name: "none", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}},
			},
		}, &bpfjit.Options{Space: space, Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, run := range []func([]byte) (uint64, error){inst.Run, find.Run} {
			if r0, err := run(nil); r0 != abi.SharedBase+24 || err != nil {
				t.Errorf("with a map: %#x, %v", r0, err)
			}
		}
	})
}
