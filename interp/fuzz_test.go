package interp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// outcome is all that a run leaves.
type outcome struct {
	Result          abi.Result
	Mem, Ctx, Stack []byte
	Shared          []byte
}

// world is a Space with an instance of each kind.
type world struct {
	space     *cage.Space
	instances map[cage.Kind]*cage.Instance
	shared    []byte
}

func newWorld(t testing.TB) *world {
	w := &world{space: new(cage.Space), instances: map[cage.Kind]*cage.Instance{}}
	addr, err := w.space.Alloc(64)
	if err != nil {
		t.Fatal(err)
	}
	if w.shared, err = w.space.Bytes(addr, w.space.Size()); err != nil {
		t.Fatal(err)
	}
	for kind := range kinds() {
		if w.instances[kind], err = w.space.NewInstance(kind); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, i := range w.instances {
			i.Close()
		}
		w.space.Close()
	})
	return w
}

// run runs a program on fresh memory.
func (w *world) run(t testing.TB, prog *Prog, kind cage.Kind, mem []byte, budget int64) outcome {
	inst := w.instances[kind]
	clear(w.shared)
	if err := errors.Join(inst.LoadMem(mem), inst.LoadCtx(mem[:min(len(mem), 64)])); err != nil {
		t.Fatal(err)
	}
	cfg := &Config{R1: abi.MemBase, R2: uint64(len(mem)), Budget: budget, Helper: func(number uint32) abi.HelperFunc {
		if number > 10 {
			return nil
		}
		return func(_ abi.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) { return r1 ^ r2<<1 ^ uint64(number), nil }
	}}
	o := outcome{Result: prog.Run(inst, cfg)}
	o.Mem = bytes.Clone(inst.Mem())
	o.Ctx = bytes.Clone(inst.Ctx())
	o.Stack = bytes.Clone(inst.Stack())
	o.Shared = bytes.Clone(w.shared)
	inst.Reset(cage.WritesAll)
	return o
}

// invariants are what holds for every program: a run stays within its budget,
// ends in one of the known ways, at an instruction of the program, and does
// the same again, on memory of either kind, traced or not.
func (w *world) invariants(t testing.TB, p *bpf.Program, mem []byte) abi.Result {
	const budget = 5000
	prog, err := Prepare(p)
	if err != nil {
		var e *bpf.Error
		if !errors.As(err, &e) {
			t.Fatalf("%v is no *bpf.Error", err)
		}
		return abi.Result{Slot: -1}
	}
	first := w.run(t, prog, cage.Plain, mem, budget)
	r := first.Result
	switch {
	case r.Used < 0 || r.Used > budget:
		t.Fatalf("%d of %d used", r.Used, budget)
	case (r.Slot == -1) != (r.Stop == abi.StopExit) || r.Slot >= len(p.Insns) || r.Slot < -1:
		t.Fatalf("%+v of %d slots", r, len(p.Insns))
	case (r.Cause() == nil) != (r.Stop == abi.StopExit):
		t.Fatalf("%+v has the cause %v", r, r.Cause())
	}
	for kind := range w.instances {
		if second := w.run(t, prog, kind, mem, budget); !reflect.DeepEqual(first, second) {
			t.Fatalf("the second run differs: (-first +second)\n%s", cmp.Diff(first, second))
		}
	}
	var executed []int
	traced := prog.Traced(func(slot int) { executed = append(executed, slot) })
	if again := w.run(t, traced, cage.Plain, mem, budget); !reflect.DeepEqual(first, again) {
		t.Fatalf("traced, it differs: (-first +traced)\n%s", cmp.Diff(first, again))
	}
	if n := len(executed); int64(n) > r.Used || (r.Stop == abi.StopFault || r.Stop == abi.StopHelper) && executed[n-1] != r.Slot {
		t.Fatalf("%+v, but the slots %v were executed", r, executed)
	}
	// With less budget than it used, it ends sooner.
	if r.Used > 1 { // a budget of 0 is the default
		less := w.run(t, prog, cage.Plain, mem, r.Used-1).Result
		if less.Stop != abi.StopBudget || less.Used >= r.Used {
			t.Fatalf("with a budget of %d: %+v, with %d: %+v", budget, r, r.Used-1, less)
		}
	}
	return r
}

// FuzzRun takes program bytes and memory.
func FuzzRun(f *testing.F) {
	for _, text := range []string{
		"r0 = 0\nexit",
		"*(u64 *)(r10 - 8) = r1\nr0 = *(u64 *)(r10 - 8)\ncall pc+1\nexit\nmay_goto -1\nexit",
		"w0 = atomic_fetch_xor((u32 *)(r1 + 4), w0)\nr3 = 0x80000000 ll\n*(u8 *)(r3 + 4) = 9\ngoto -3",
		"call 3\ncallx r0\nexit",
	} {
		insns, err := bpf.Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		var code []byte
		for _, i := range insns {
			code = append(code, i.Op, i.Regs)
			code = binary.LittleEndian.AppendUint16(code, uint16(i.Off))
			code = binary.LittleEndian.AppendUint32(code, uint32(i.Imm))
		}
		f.Add(code, []byte("some memory"))
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, code, mem []byte) {
		insns, err := bpf.Decode(code)
		if err != nil || len(mem) > 1<<16 {
			return
		}
		w.invariants(t, &bpf.Program{Insns: insns}, mem)
	})
}

// TestRandom does the same with programs that pass the check, most of them
// wild.
func TestRandom(t *testing.T) {
	rnd := testprog.Rand(testprog.Seed(t), 0)
	w := newWorld(t)
	ends := map[abi.Stop]int{}
	for range 2000 {
		mem := make([]byte, rnd.IntN(200))
		for k := range mem {
			mem[k] = byte(rnd.Uint32())
		}
		p := random(rnd)
		if err := bpf.Check(p, bpf.Source); err != nil {
			t.Fatalf("a random program: %v", err)
		}
		ends[w.invariants(t, p, mem).Stop]++
	}
	t.Logf("ends: %v", ends)
	for _, s := range []abi.Stop{abi.StopExit, abi.StopFault, abi.StopBudget, abi.StopHelper} {
		if ends[s] == 0 {
			t.Errorf("no random program ended with %v", s)
		}
	}
}

// random makes a program of a main function and one that it may call. Pointers
// are mostly good: R1 and R10 are rarely written before they are used.
func random(rnd *rand.Rand) *bpf.Program {
	var forms []tables.Form
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if tables.Forms[f].Source == tables.Allowed && f != tables.FormLdSecond && f != tables.FormLdFunc {
			forms = append(forms, f)
		}
	}
	n := 5 + rnd.IntN(40)
	half := n/2 + 1
	var insns []bpf.Insn
	for slot := range n {
		insns = append(insns, instruction(rnd, forms, slot, n, half))
	}
	insns[half-1], insns[n-1] = bpf.Insn{Op: abi.OpExit}, bpf.Insn{Op: abi.OpExit}
	return &bpf.Program{Insns: insns}
}

// instruction makes one slot of a random program; the second function begins
// at half.
func instruction(rnd *rand.Rand, forms []tables.Form, slot, n, half int) bpf.Insn {
	f := &tables.Forms[forms[rnd.IntN(len(forms))]]
	for f.Op == abi.OpLdImm64 || f.Flow == tables.FlowExit || f.Flow == tables.FlowCall && rnd.IntN(3) > 0 ||
		slot >= half && f.Name == "jmp.call_local" {
		f = &tables.Forms[forms[rnd.IntN(len(forms))]]
	}
	reg := func(o tables.Operand) uint8 {
		switch {
		case o.Fixed():
			return uint8(o.Value)
		case o.Use == tables.UseAddress:
			return [...]uint8{1, 10, 10, uint8(rnd.IntN(10))}[rnd.IntN(4)]
		case o.Writes():
			return [...]uint8{0, 2, 3, 4, 5, 6, 7, 8, 9, uint8(rnd.IntN(10))}[rnd.IntN(10)]
		}
		return uint8(rnd.IntN(11))
	}
	insn := bpf.Insn{Op: f.Op, Off: int16(f.Off.Value), Imm: f.Imm.Value, Regs: abi.Registers(reg(f.Dst), reg(f.Src))}
	if f.Imm.Use == tables.UseConstant {
		insn.Imm = int32(rnd.Uint32()) >> rnd.IntN(32)
		if f.Flow == tables.FlowCall {
			insn.Imm = int32(rnd.IntN(24))
		}
	}
	if f.Off.Use == tables.UseDisplacement {
		insn.Off = int16(-8 * (1 + rnd.IntN(8)))
		if address := [...]uint8{insn.Dst(), insn.Src()}; address[0] != abi.R10 && address[1] != abi.R10 {
			insn.Off = int16(rnd.IntN(9)) * int16(1+7*rnd.IntN(2))
		}
	}
	first, end := 0, half
	if slot >= half {
		first, end = half, n
	}
	to := int32(first + rnd.IntN(end-first) - slot - 1)
	if f.Name == "jmp.call_local" {
		to = int32(half - slot - 1)
	}
	if f.Off.Use == tables.UseDistance {
		insn.Off = int16(to)
	}
	if f.Imm.Use == tables.UseDistance {
		insn.Imm = to
	}
	return insn
}
