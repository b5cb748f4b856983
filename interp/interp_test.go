package interp

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

func prepare(t testing.TB, p *bpf.Program) *Prog {
	t.Helper()
	prog, err := Prepare(p)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// newInstance returns an instance whose caller's memory is a copy of mem.
func newInstance(t testing.TB, kind cage.Kind, mem []byte) *cage.Instance {
	t.Helper()
	s := new(cage.Space)
	i, err := s.NewInstance(kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		i.Close()
		s.Close()
	})
	if err := i.LoadMem(mem); err != nil {
		t.Fatal(err)
	}
	return i
}

// compare compares results; errors by errors.Is.
func compare(t testing.TB, got, want abi.Result) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateErrors()); d != "" {
		t.Errorf("result (-want +got):\n%s", d)
	}
}

var errOwn = errors.New("own")

// helpers are those that the tests' programs call.
func helpers(number uint32) abi.HelperFunc {
	switch number {
	case 1:
		return func(_ abi.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
			return r1 + 10*r2 + 100*r3 + 1000*r4 + 10000*r5, nil
		}
	case 2:
		return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 99, errOwn }
	}
	return nil
}

func exit(r0 uint64, used int64) abi.Result { return abi.Result{R0: r0, Used: used, Slot: -1} }

func fault(slot int, addr int64, used int64) abi.Result {
	return abi.Result{Stop: abi.StopFault, Slot: slot, Addr: addr, Used: used}
}

// TestPrograms runs small programs with R1 = 16 bytes of memory, R2 = 16.
func TestPrograms(t *testing.T) {
	const mem = abi.MemBase
	for _, c := range []struct {
		name, text string
		budget     int64
		want       abi.Result
	}{
		{"first argument", "r0 = r1\nexit", 0, exit(mem, 2)},
		{"second argument", "r0 = r2\nexit", 0, exit(16, 2)},
		{"r10", "r0 = r10\nexit", 0, exit(abi.StackTop, 2)},
		{"others are 0", "r0 |= r3\nr0 |= r4\nr0 |= r5\nr0 |= r6\nr0 |= r7\nr0 |= r8\nr0 |= r9\nexit", 0, exit(0, 8)},
		{"64-bit constant", "r0 = 0x1122334455667788 ll\nexit", 0, exit(0x1122334455667788, 2)},
		{"over a 64-bit constant", "r0 = 3\nif r0 == 3 goto +2\nr0 = 0x1122334455667788 ll\nexit", 0, exit(3, 4)},
		{"gotol", "r0 = 1\ngotol +1\nr0 = 2\nexit", 0, exit(1, 3)},

		{"stack", "*(u64 *)(r10 - 8) = -2\nr0 = *(u32 *)(r10 - 4)\nexit", 0, exit(math.MaxUint32, 3)},
		{"stack through a copy", "r3 = r10\nr3 += -16\n*(u16 *)(r3 + 8) = 0x1234\nr0 = *(u8 *)(r10 - 7)\nexit", 0, exit(0x12, 5)},
		{"address is 32 bits", "r3 = 0x7000000000100000 ll\n*(u8 *)(r3 + 0) = 7\nr0 = *(u8 *)(r1 + 0)\nexit", 0, exit(7, 4)},
		{"offset doesn't wrap below", "r3 = 8\nr0 = *(u64 *)(r3 - 16)\nexit", 0, fault(1, -8, 3)},
		{"offset doesn't wrap above", "r3 = -1\nr0 = *(u8 *)(r3 + 32767)\nexit", 0, fault(1, math.MaxUint32+32767, 3)},
		{"null", "r0 = *(u8 *)(r3 + 0)\nexit", 0, fault(0, 0, 2)},
		{"above the stack", "r3 = r10\nr0 = *(u8 *)(r3 + 0)\nexit", 0, fault(1, abi.StackTop, 3)},
		{"slack is zero", "r0 = *(u64 *)(r1 + 4088)\nexit", 0, exit(0, 2)},
		{"behind the page", "r0 = *(u64 *)(r1 + 4089)\nexit", 0, fault(0, mem+4089, 2)},
		{"store across the edge", "*(u64 *)(r1 + 4089) = -1\nexit", 0, fault(0, mem+4089, 2)},
		{"misaligned atomic", "lock *(u32 *)(r1 + 2) += w2\nexit", 0, fault(0, mem+2, 2)},
		{"misaligned load-acquire", "w0 = load_acquire((u16 *)(r1 + 1))\nexit", 0, fault(0, mem+1, 2)},
		{"misaligned store-release", "store_release((u64 *)(r1 + 4), r2)\nexit", 0, fault(0, mem+4, 2)},
		{"handle of a function is no memory", "r1 = func pc+3\nr0 = *(u8 *)(r1 + 0)\nexit\nexit", 0, fault(2, abi.FuncHandleBase+abi.HandleStep, 3)},
		{"handle of a function", "r0 = func pc+2\nexit\nexit", 0, exit(abi.FuncHandleBase+abi.HandleStep, 2)},

		{"helper", "r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\ncall 1\nexit", 0, exit(54321, 7)},
		{"helper clears", "r5 = 5\nr6 = 6\ncall 1\nr0 = r1\nr0 |= r2\nr0 |= r3\nr0 |= r4\nr0 |= r5\nr0 |= r6\nexit", 0, exit(6, 10)},
		{"helper fails", "call 2\nexit", 0, abi.Result{Stop: abi.StopHelper, Slot: 0, Used: 2, Err: errOwn}},
		{"unknown helper", "r0 = 1\ncall 77\nexit", 0, abi.Result{Stop: abi.StopHelper, Slot: 1, Used: 3, Err: abi.UnknownHelper(77)}},
		{"callx", "r1 = 1\nr2 = 2\nr7 = 0x500000001 ll\ncallx r7\nexit", 0, exit(21, 5)},
		{"callx of nothing", "callx r7\nexit", 0, abi.Result{Stop: abi.StopHelper, Slot: 0, Used: 2, Err: abi.UnknownHelper(0)}},

		{"callee sees all registers", `
			r0 = 1
			r3 = 3
			r9 = 9
			call pc+1
			exit
			r0 += r3
			r0 += r9
			r0 += r2
			exit`, 0, exit(29, 9)},
		{"registers after a call", `
			r6 = 1
			r7 = 2
			r8 = 3
			r9 = 4
			call pc+8
			r0 += r6
			r0 += r7
			r0 += r8
			r0 += r9
			r0 += r1
			r0 += r5
			r0 += r10
			exit
			r6 = 1000
			r7 = 1000
			r8 = 1000
			r9 = 1000
			r1 = 50
			r5 = 60
			r0 = 100
			exit`, 0, exit(100+1+2+3+4+50+60+abi.StackTop, 21)},
		{"frames are 528 bytes apart", `
			r6 = r10
			*(u64 *)(r10 - 512) = 7
			call pc+3
			r6 -= r0
			r0 = r6
			exit
			*(u64 *)(r10 - 8) = 8
			r0 = r10
			exit`, 0, exit(abi.FrameSize, 9)},
		{"callee's frame is under the caller's", `
			call pc+2
			r0 = *(u64 *)(r6 - 536)
			exit
			*(u64 *)(r10 - 8) = 8
			r0 = 0
			exit`, 0, fault(1, -536, 6)},
		{"eight frames", `
			call pc+1
			exit
			call pc+1
			exit
			call pc+1
			exit
			call pc+1
			exit
			call pc+1
			exit
			call pc+1
			exit
			call pc+1
			exit
			r0 = r10
			exit`, 0, exit(abi.StackTop-7*abi.FrameSize, 16)},

		{"budget just enough", "r0 = 1\nr0 += 1\nexit", 3, exit(2, 3)},
		{"budget one short", "r0 = 1\nr0 += 1\nexit", 2, abi.Result{Stop: abi.StopBudget, Slot: 0}},
		{"budget in a loop", "r0 = 0\nr0 += 1\ngoto -2", 12, abi.Result{Stop: abi.StopBudget, Slot: 1, Used: 11}},
		{"budget in a callee", "call pc+1\nexit\nr0 = 1\nexit", 3, abi.Result{Stop: abi.StopBudget, Slot: 2, Used: 2}},
		{"loop back to the beginning", "r0 += 1\nif r0 != 3 goto -2\nexit", 9, exit(3, 9)},
	} {
		for kind, name := range kinds() {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				inst := newInstance(t, kind, make([]byte, 16))
				cfg := &Config{R1: mem, R2: 16, Budget: c.budget, Helper: helpers}
				compare(t, prepare(t, testprog.Parse(t, c.text)).Run(inst, cfg), c.want)
			})
		}
	}
}

// kinds are the kinds of instance that there are here.
func kinds() map[cage.Kind]string {
	m := map[cage.Kind]string{cage.Plain: "plain"}
	if cage.Supported() == nil {
		m[cage.Window] = "window"
	}
	return m
}

// TestFaultChangesNothing: neither memory nor, seen through the result, R0.
func TestFaultChangesNothing(t *testing.T) {
	for _, text := range []string{
		"*(u64 *)(r1 + 4089) = -1\nexit",
		"*(u64 *)(r1 + 4090) = r2\nexit",
		"lock *(u64 *)(r1 + 4) += r2\nexit",
		"store_release((u32 *)(r1 + 2), w2)\nexit",
		"r0 = cmpxchg_64(r1 + 4, r0, r2)\nexit",
	} {
		inst := newInstance(t, cage.Plain, make([]byte, 4096))
		got := prepare(t, testprog.Parse(t, text)).Run(inst, &Config{R1: abi.MemBase, R2: math.MaxUint64})
		if got.Stop != abi.StopFault || got.R0 != 0 {
			t.Errorf("%q: %+v", text, got)
		}
		for k, b := range inst.Mem() {
			if b != 0 {
				t.Errorf("%q changed byte %d", text, k)
			}
		}
	}
}

// TestProbe: a load that a loader marked gives 0 where it would fault.
func TestProbe(t *testing.T) {
	p := testprog.Parse(t, "r0 = 7\nr0 = *(u64 *)(r3 + 0)\nexit")
	p.Flags = []bpf.Flag{0, bpf.Probe, 0}
	prog := prepare(t, p)
	inst := newInstance(t, cage.Plain, []byte{5, 0, 0, 0, 0, 0, 0, 0})
	compare(t, prog.Run(inst, &Config{}), exit(0, 3))
	p = testprog.Parse(t, "r0 = *(s8 *)(r1 + 0)\nexit")
	p.Flags = []bpf.Flag{bpf.Probe, 0}
	compare(t, prepare(t, p).Run(inst, &Config{R1: abi.MemBase}), exit(5, 2))
}

func TestMayGoto(t *testing.T) {
	const text = `
		r0 += 1
		may_goto +1
		goto -3
		exit`
	inst := newInstance(t, cage.Plain, nil)
	got := prepare(t, testprog.Parse(t, text)).Run(inst, &Config{})
	if want := uint64(abi.MayGotoCount + 1); got.R0 != want || got.Stop != abi.StopExit {
		t.Errorf("%+v, want R0 = %d", got, want)
	}
}

// TestMayGotoCounter: every invocation counts for itself, in its frame, and
// jumps back to the first instruction go on counting.
func TestMayGotoCounter(t *testing.T) {
	// The callee shortens its own count to 5, through a pointer, once.
	const text = `
		call pc+5
		r6 = r0
		call pc+3
		r0 += r6
		may_goto +0
		exit
		may_goto +1
		goto +2
		r0 = r7
		exit
		if r7 != 0 goto +3
		r1 = r10
		r1 += -520
		*(u64 *)(r1 + 0) = 5
		r7 += 1
		goto -10`
	inst := newInstance(t, cage.Plain, nil)
	// Each call: six rounds, the last of which jumps out.
	compare(t, prepare(t, testprog.Parse(t, text)).Run(inst, &Config{}), abi.Result{R0: 12, Slot: -1, Used: 6 + 2*7*8})
	// What the main program has left is in its frame.
	if v, ok := inst.Load(abi.StackTop+abi.MayGotoOffset, 8); v != abi.MayGotoCount-1 || !ok {
		t.Errorf("the counter of the main program is %d", v)
	}
}

func TestCheck(t *testing.T) {
	prog := prepare(t, testprog.Parse(t, "goto -1"))
	inst := newInstance(t, cage.Plain, nil)
	calls := 0
	cfg := &Config{Budget: -1, Check: func() error {
		if calls++; calls == 10 {
			return errOwn
		}
		return nil
	}}
	got := prog.Run(inst, cfg)
	if got.Stop != abi.StopCancel || got.Slot != 0 || !errors.Is(got.Cause(), errOwn) {
		t.Errorf("%+v", got)
	}
	if n := got.Used; n < 9*abi.Slice || n > 11*abi.Slice {
		t.Errorf("ten checks came in %d instructions", n)
	}
	calls = 0
	if got := prog.Run(inst, &Config{Budget: 3 * abi.Slice, Check: cfg.Check}); got.Stop != abi.StopBudget || got.Used != 3*abi.Slice {
		t.Errorf("%+v", got)
	}
}

// TestTraced: a trace has each executed instruction, those of callees and
// fetches from two slots included, and nothing that a jump passed by.
func TestTraced(t *testing.T) {
	var got []int
	prog := prepare(t, testprog.Parse(t, `
		r6 = 5 ll
		r6 += -3
		if r6 != 0 goto +1
		r7 = 1
		call pc+1
		exit
		r6 = 2
		r6 += -1
		if r6 != 0 goto -2
		exit`)).Traced(func(slot int) { got = append(got, slot) })
	compare(t, prog.Run(newInstance(t, cage.Plain, nil), &Config{}), exit(0, 13))
	if d := cmp.Diff([]int{0, 2, 3, 5, 7, 8, 9, 8, 9, 10, 6}, got); d != "" {
		t.Errorf("slots (-want +got):\n%s", d)
	}
	got = nil
	if r := prog.Run(newInstance(t, cage.Plain, nil), &Config{Budget: 5}); r.Stop != abi.StopBudget || got != nil {
		t.Errorf("%+v: %v", r, got)
	}
}

func TestDefaultBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("executes 2^30 instructions")
	}
	// A wide loop: each round costs little and takes much.
	insns := []bpf.Insn{}
	for range 30000 {
		insns = append(insns, bpf.Insn{Op: 0x15, Regs: 0, Off: 0, Imm: 1}) // if r0 == 1 goto +0
	}
	insns[0] = bpf.Insn{Op: 0x15, Regs: 0, Off: int16(len(insns) - 1)} // if r0 == 0 goto the end
	insns = append(insns, bpf.Insn{Op: abi.OpJa, Off: int16(-len(insns) - 1)})
	n := int64(len(insns))
	got := prepare(t, &bpf.Program{Insns: insns}).Run(newInstance(t, cage.Plain, nil), &Config{})
	compare(t, got, abi.Result{Stop: abi.StopBudget, Slot: 0, Used: abi.DefaultBudget / n * n})
}

func TestHelperPanics(t *testing.T) {
	prog := prepare(t, testprog.Parse(t, "*(u64 *)(r10 - 8) = 1\ncall 1\nexit"))
	inst := newInstance(t, cage.Plain, nil)
	func() {
		defer func() {
			if recover() != "own" {
				t.Error("the panic didn't pass through")
			}
		}()
		prog.Run(inst, &Config{Helper: func(uint32) abi.HelperFunc {
			return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { panic("own") }
		}})
	}()
	compare(t, prog.Run(inst, &Config{Helper: helpers}), exit(0, 3))
}

func TestPrepareRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		insns []bpf.Insn
		slot  int
	}{
		{"nothing", nil, -1},
		{"charge", []bpf.Insn{{Op: abi.OpCharge, Imm: 2}, {Op: abi.OpExit}}, 0},
		{"ax", []bpf.Insn{{Op: 0xb7, Regs: abi.AX}, {Op: abi.OpExit}}, 0},
		{"no end", []bpf.Insn{{Op: 0xb7}}, 0},
		{"map reference", []bpf.Insn{{Op: abi.OpLdImm64, Regs: 0x10}, {}, {Op: abi.OpExit}}, 0},
	} {
		_, err := Prepare(&bpf.Program{Insns: c.insns})
		var e *bpf.Error
		if !errors.As(err, &e) || e.Slot != c.slot {
			t.Errorf("%s: %v, want an error about slot %d", c.name, err, c.slot)
		}
	}
}

// TestTooManyFunctions: there are only so many handles.
func TestTooManyFunctions(t *testing.T) {
	var insns []bpf.Insn
	for k := range abi.MaxHandles + 1 {
		// Each function but the last takes the address of the next.
		insns = append(insns, bpf.Insn{Op: abi.OpLdImm64, Regs: abi.Registers(0, abi.Imm64Func), Imm: 2}, bpf.Insn{}, bpf.Insn{Op: abi.OpExit})
		if k == abi.MaxHandles {
			insns[len(insns)-3] = bpf.Insn{Op: 0xb7}
			insns[len(insns)-2] = bpf.Insn{Op: 0xb7}
		}
	}
	_, err := Prepare(&bpf.Program{Insns: insns})
	if !errors.Is(err, bpf.ErrRange) {
		t.Errorf("%v, want ErrRange", err)
	}
}

func TestRunAllocs(t *testing.T) {
	prog := prepare(t, testprog.Parse(t, `
		call pc+3
		*(u64 *)(r1 + 0) = r0
		call 1
		exit
		r0 = atomic_fetch_add((u64 *)(r1 + 8), r0)
		may_goto +0
		exit`))
	inst := newInstance(t, cage.Plain, make([]byte, 16))
	cfg := &Config{R1: abi.MemBase, Helper: helpers}
	if n := testprog.Allocations(100, func() { prog.Run(inst, cfg) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name, text string
		insns      int64
	}{
		{"empty", "r0 = 0\nexit", 2},
		{"alu", "r2 = 10000\nr0 += 3\nr0 *= 5\nr0 ^= r2\nr2 -= 1\nif r2 != 0 goto -5\nexit", 50002},
		{"memory", "r2 = 10000\n*(u64 *)(r10 - 8) = r2\nr3 = *(u32 *)(r1 + 4)\nr0 += r3\nr2 -= 1\nif r2 != 0 goto -5\nexit", 50002},
	} {
		b.Run(c.name, func(b *testing.B) {
			prog := prepare(b, testprog.Parse(b, c.text))
			inst := newInstance(b, cage.Plain, make([]byte, 16))
			cfg := &Config{R1: abi.MemBase}
			b.ReportAllocs()
			for b.Loop() {
				prog.Run(inst, cfg)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.insns), "ns/insn")
		})
	}
}
