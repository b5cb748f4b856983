//go:build linux && amd64 && !purego

package machine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

func TestDone(t *testing.T) {
	g := newRig(t)
	for range 3 { // the second run finds what the first one left
		out := g.run(input{R1: 40, R2: 2, Input: Input{Budget: 100}},
			"48 8d 04 37  ; lea rax, ptr [rdi+rsi]",
			"49 83 e9 05  ; sub r9, 0x5",
			"c3           ; ret")
		want := abi.Result{R0: 42, Used: 5, Slot: -1}
		if d := cmp.Diff(want, out.Result); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

func TestEntryOffset(t *testing.T) {
	g := newRig(t)
	out := g.run(input{Input: Input{Entry: 5}},
		"b8 01 00 00 00 ; mov eax, 0x1",
		"83 c0 07       ; add eax, 0x7",
		"c3             ; ret")
	if out.R0 != 7 {
		t.Errorf("R0 = %d", out.R0)
	}
}

// TestEntryRegisters: code begins with what the documentation says, and with
// nothing that the host left.
func TestEntryRegisters(t *testing.T) {
	g := newRig(t)
	out := g.run(input{R1: 0x1122334455667788, R2: 2, Input: Input{Budget: 1000}}, "0f 0b ; ud2")
	if want := [11]uint64{1: 0x1122334455667788, 2: 2, 10: abi.StackTop}; out.R != want {
		t.Errorf("BPF registers %x", out.R)
	}
	base := uint64(uintptr(g.inst.Base()))
	r := g.regs()
	if r[abi.X86R10] != 0 || r[abi.X86R9] != 1000 || r[abi.X86R12] != base {
		t.Errorf("r10 = %#x, r9 = %d, r12 = %#x", r[abi.X86R10], r[abi.X86R9], r[abi.X86R12])
	}
	// One return address has been pushed.
	if top := uint64(g.inst.NativeStackTop()); r[abi.RSP] != top-8 {
		t.Errorf("rsp is %d below the top", top-r[abi.RSP])
	}
	// The flag of the string instructions.
	if c := g.inst.Context(); c.RFlags&0x400 != 0 {
		t.Errorf("rflags %#x", c.RFlags)
	}
}

// setAll gives every register but rsp and r12 a value of its own, and r9 as
// many slices as budget.
const setAll = `
	48 c7 c0 10 00 00 00 ; mov rax, 0x10
	48 c7 c1 11 00 00 00 ; mov rcx, 0x11
	48 c7 c2 12 00 00 00 ; mov rdx, 0x12
	48 c7 c3 13 00 00 00 ; mov rbx, 0x13
	48 c7 c5 15 00 00 00 ; mov rbp, 0x15
	48 c7 c6 16 00 00 00 ; mov rsi, 0x16
	48 c7 c7 17 00 00 00 ; mov rdi, 0x17
	49 c7 c0 18 00 00 00 ; mov r8, 0x18
	49 c7 c2 1a 00 00 00 ; mov r10, 0x1a
	49 c7 c3 1b 00 00 00 ; mov r11, 0x1b
	49 c7 c5 1d 00 00 00 ; mov r13, 0x1d
	49 c7 c6 1e 00 00 00 ; mov r14, 0x1e
	49 c7 c7 1f 00 00 00 ; mov r15, 0x1f`

// TestSliceKeepsRegisters: nothing but r9 is another after a slice's exit, the
// native stack included; r11 is the charge.
func TestSliceKeepsRegisters(t *testing.T) {
	g := newRig(t)
	polls := 0
	poll := func() error { polls++; clobber(20); return nil }
	out := g.run(input{Input: Input{Budget: 10 * abi.Slice, Poll: poll}}, setAll,
		"6a 2a ; push 0x2a",
		charge(3*abi.Slice), // more than the slice: exit
		charge(2*abi.Slice),
		"59    ; pop rcx",
		"0f 0b ; ud2")
	if out.Stop != abi.StopFault || polls != 2 || out.Used != 5*abi.Slice {
		t.Fatalf("%+v, polled %d times", out, polls)
	}
	want := [16]uint64{0x10, 0x2a, 0x12, 0x13, 0, 0x15, 0x16, 0x17, 0x18, 0, 0x1a, 2 * abi.Slice, 0, 0x1d, 0x1e, 0x1f}
	got := g.regs()
	if got[abi.RSP] != uint64(g.inst.NativeStackTop())-8 {
		t.Errorf("rsp = %#x", got[abi.RSP])
	}
	got[abi.RSP], got[abi.X86R9], got[abi.X86R12] = 0, 0, 0
	if got != want {
		t.Errorf("registers %x, want %x", got, want)
	}
}

// clobber uses registers and stack as Go code does.
//
//go:noinline
func clobber(n int) [4]uint64 {
	if n == 0 {
		return [4]uint64{1, 2, 3, 4}
	}
	a := clobber(n - 1)
	return [4]uint64{a[3] ^ uint64(n), a[0] * 3, a[1] + a[2], a[2] | 1}
}

// TestHelper: arguments arrive, the result does, and the registers that a
// helper may change are zero afterwards, the others as before.
func TestHelper(t *testing.T) {
	g := newRig(t)
	var args [5]uint64
	env := &fakeEnv{}
	helpers := NewHelpers(map[uint32]abi.HelperFunc{
		7: func(e abi.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
			args = [5]uint64{r1, r2, r3, r4, r5}
			clobber(30)
			if e != env {
				t.Errorf("env is %v", e)
			}
			return 0xfedcba9876543210, nil
		},
	})
	out := g.run(input{Input: Input{Budget: 1000, Helpers: helpers, Env: env}}, setAll,
		"49 83 e9 05 ; sub r9, 0x5",
		"6a 2a       ; push 0x2a",
		callHelper(7),
		"59          ; pop rcx",
		"0f 0b       ; ud2")
	if want := [5]uint64{0x17, 0x16, 0x12, 0x11, 0x18}; args != want {
		t.Errorf("arguments %x", args)
	}
	if want := [11]uint64{0xfedcba9876543210, 0, 0, 0, 0x2a, 0, 0x13, 0x1d, 0x1e, 0x1f, 0x15}; out.R != want {
		t.Errorf("registers %x, want %x", out.R, want)
	}
	if out.Used != 5 {
		t.Errorf("used %d", out.Used)
	}
}

type fakeEnv struct{ abi.Env }

func TestHelperErrors(t *testing.T) {
	g := newRig(t)
	own := errors.New("no")
	helpers := NewHelpers(map[uint32]abi.HelperFunc{
		1:       func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 0, own },
		2:       func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { return r1 + 1, nil },
		1 << 31: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { return r1 + 2, nil },
	})
	for _, tt := range []struct {
		number  int
		helpers *Helpers
		want    error
	}{
		{1, helpers, own},
		{2, helpers, nil},
		{1 << 31, helpers, nil},
		{0, helpers, abi.UnknownHelper(0)},
		{3, helpers, abi.UnknownHelper(3)},
		{1000, helpers, abi.UnknownHelper(1000)},
		{1<<32 - 1, helpers, abi.UnknownHelper(1<<32 - 1)},
		{1, nil, abi.UnknownHelper(1)},
	} {
		out := g.run(input{R1: 5, R2: 6, Input: Input{Helpers: tt.helpers, Budget: 50}},
			"90 ; nop",
			callHelper(tt.number),
			"c3 ; ret")
		if tt.want == nil {
			if out.Stop != abi.StopExit || out.R0 != uint64(6+tt.number>>31) {
				t.Errorf("helper %d: %+v", tt.number, out)
			}
			continue
		}
		want := Result{
			Result: abi.Result{Stop: abi.StopHelper, Slot: -1, Err: tt.want},
			PC:     1 + callHelperLen - 1,
			R:      [11]uint64{1: 5, 2: 6, 10: abi.StackTop},
		}
		if out != want {
			t.Errorf("helper %d: %+v, want %+v", tt.number, out, want)
		}
	}
}

// TestCallx: the number may come from a register; its upper half isn't looked
// at, as the code moves 32 bits.
func TestCallx(t *testing.T) {
	g := newRig(t)
	out := g.run(input{R1: 0x1_0000_0063, Input: Input{Helpers: NewHelpers(nil)}},
		"89 f8 ; mov eax, edi",
		"41 ff 94 24"+word(abi.ContextOffset+abi.OffHelperStub),
		"c3    ; ret")
	if out.Err != abi.UnknownHelper(99) {
		t.Errorf("%+v", out)
	}
}

// TestBudget compares where a run of charges ends, and what it used, with a
// plain subtraction.
func TestBudget(t *testing.T) {
	g := newRig(t)
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 300 {
		charges := make([]int, 1+r.IntN(12))
		lines := make([]string, len(charges))
		sum := 0
		for i := range charges {
			switch r.IntN(4) {
			case 0:
				charges[i] = 1 + r.IntN(5)
			case 1:
				charges[i] = abi.Slice - 2 + r.IntN(5)
			case 2:
				charges[i] = 1 + r.IntN(3*abi.Slice)
			default:
				charges[i] = 1 + r.IntN(1<<30)
			}
			sum += charges[i]
			lines[i] = charge(charges[i])
		}
		var budget int64
		switch r.IntN(4) {
		case 0:
			budget = -1
		case 1:
			budget = int64(sum) - 2 + int64(r.IntN(5))
		default:
			budget = 1 + r.Int64N(2*int64(sum))
		}
		limit := budget
		if budget == 0 {
			limit = abi.DefaultBudget
		}
		used, passed := int64(0), 0
		for _, n := range charges {
			if limit >= 0 && used+int64(n) > limit {
				break
			}
			used += int64(n)
			passed++
		}

		out := g.run(input{Input: Input{Budget: budget}}, strings.Join(lines, "\n"), "c3 ; ret")
		want := Result{Result: abi.Result{Used: used, Slot: -1}}
		if passed < len(charges) {
			want.Stop = abi.StopBudget
			want.PC = (passed+1)*chargeLen - 1
			want.R[10] = abi.StackTop
		}
		got := out
		if got.Stop == abi.StopExit {
			got = Result{Result: out.Result}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("budget %d, charges %v: (-want +got):\n%s", budget, charges, d)
		}
	}
}

// TestBudgetDefault: 0 is abi.DefaultBudget.
func TestBudgetDefault(t *testing.T) {
	g := newRig(t)
	for _, n := range []int{0, 1} {
		out := g.run(input{}, charge(abi.DefaultBudget/2), charge(abi.DefaultBudget/2+n), "c3 ; ret")
		want := [2]abi.Stop{abi.StopExit, abi.StopBudget}[n]
		if out.Stop != want {
			t.Errorf("%d more than the default: %v", n, out.Stop)
		}
	}
}

// TestEndlessLoop: a loop that never ends uses its budget, and the last charge
// that doesn't fit isn't taken.
func TestEndlessLoop(t *testing.T) {
	g := newRig(t)
	const n, budget = 7, 1_000_000
	out := g.run(input{Input: Input{Budget: budget}}, endless(n))
	if out.Stop != abi.StopBudget || out.Used != budget/n*n || out.R[0] != budget/n {
		t.Errorf("%+v", out)
	}
}

// TestPoll: an error ends an endless loop without a budget, at the charge.
func TestPoll(t *testing.T) {
	g := newRig(t)
	own := errors.New("enough")
	polls := 0
	out := g.run(input{Input: Input{Budget: -1, Poll: func() error {
		if polls++; polls < 5 {
			return nil
		}
		return own
	}}}, endless(1))
	want := Result{
		Result: abi.Result{Used: 5 * abi.Slice, Stop: abi.StopCancel, Slot: -1, Err: own},
		PC:     chargeLen - 1,
		R:      [11]uint64{0: 5 * abi.Slice, 10: abi.StackTop},
	}
	if out != want {
		t.Errorf("%+v, want %+v", out, want)
	}
}

// TestCollectorGetsIn: an endless loop holds up neither the collector nor
// other goroutines, even if there is only one processor. Without slices it
// would for ever.
func TestCollectorGetsIn(t *testing.T) {
	for _, procs := range []int{0, 1} {
		t.Run(fmt.Sprintf("procs=%d", procs), func(t *testing.T) {
			if procs > 0 {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			}
			g := newRig(t)
			im := load(t, assemble(t, endless(1)))
			runs, stop := make(chan struct{}), make(chan struct{})
			stopped := errors.New("stopped")
			var run sync.WaitGroup
			run.Go(func() {
				begun := sync.OnceFunc(func() { close(runs) })
				defer begun()
				in := input{Input: Input{Budget: -1, Poll: func() error {
					begun()
					select {
					case <-stop:
						return stopped
					default:
						return nil
					}
				}}}
				var out Result
				if once(g.inst, im, &in, &out); out.Err != stopped {
					t.Errorf("%+v", out)
				}
			})
			<-runs
			for range 5 { // a collector that starves is here when time is up
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
			}
			close(stop)
			run.Wait()
		})
	}
}
