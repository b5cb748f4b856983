package bpfjit_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
)

// TestRunMemory checks how memory goes into a run and comes back.
func TestRunMemory(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, `
			r0 = r2                  ; the length
			if r1 == 0 goto +5       ; no memory
			r3 = *(u8 *)(r1 + 0)
			r3 += 1
			*(u8 *)(r1 + 0) = r3
			if r3 != 8 goto +1
			r0 = *(u8 *)(r0 + 0)     ; faults: 1 is in the null page
			exit`)
		mem := []byte{41}
		if r0, err := p.Run(mem); r0 != 1 || err != nil || mem[0] != 42 {
			t.Errorf("r0 %d, %v, memory %v", r0, err, mem)
		}
		for _, empty := range [][]byte{nil, {}} {
			if r0, err := p.Run(empty); r0 != 0 || err != nil {
				t.Errorf("empty: r0 %d, %v", r0, err)
			}
		}
		mem = []byte{7}
		if _, err := p.Run(mem); !errors.Is(err, bpfjit.ErrFault) || mem[0] != 8 {
			t.Errorf("%v, memory %v: what was written before a fault must come back", err, mem)
		}
		// What lies behind the caller's bytes is zero, and stays apart.
		tail := program(t, e, `
			r0 = *(u8 *)(r1 + 1)
			*(u8 *)(r1 + 1) = 5
			exit`)
		for range 3 {
			mem = []byte{1, 2, 3}
			if r0, err := tail.Run(mem[:1]); r0 != 0 || err != nil || mem[1] != 2 {
				t.Errorf("r0 %d, %v, memory %v", r0, err, mem)
			}
		}
	})
}

// TestRunFresh makes sure that nothing of a run shows in the next: each of
// these programs returns what it finds, and writes.
func TestRunFresh(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		for _, text := range []string{
			"r0 = *(u64 *)(r10 - 8)\n *(u64 *)(r10 - 8) = 1\n exit",
			"r0 = *(u64 *)(r10 - 512)\n r1 = r10\n *(u64 *)(r1 - 512) = 1\n exit",
			"r1 = 0x11000\n r0 = *(u64 *)(r1 + 0)\n *(u64 *)(r1 + 0) = 1\n exit",                        // the stack, by number
			"r1 = 0x20800\n r0 = *(u64 *)(r1 + 0)\n *(u64 *)(r1 + 0) = 1\n exit",                        // the context's page
			"r1 = 0x100800\n r0 = *(u64 *)(r1 + 0)\n *(u64 *)(r1 + 0) = 1\n exit",                       // behind the memory
			"call pc+1\n exit\n r0 = *(u64 *)(r10 - 8)\n *(u64 *)(r10 - 8) = 1\n exit",                  // another frame
			"r0 = r3\n r0 += r4\n r0 += r5\n r0 += r6\n r0 += r7\n r0 += r8\n r0 += r9\n r3 = 1\n exit", // registers
		} {
			p := program(t, e, text)
			in, err := p.NewInstance()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if r0, err := p.Run([]byte{1}); r0 != 0 || err != nil {
					t.Errorf("%s\nr0 %#x, %v", text, r0, err)
				}
				if r0, err := in.Run([]byte{1}); r0 != 0 || err != nil {
					t.Errorf("%s\ninstance: r0 %#x, %v", text, r0, err)
				}
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestRunErrors: both engines end a run for the same reason at the same place,
// having used the same budget.
func TestRunErrors(t *testing.T) {
	own := errors.New("own error")
	type end struct {
		Offset int
		Addr   int64
		Err    error
		Used   int64
	}
	for _, test := range []struct {
		name, text string
		want       end
	}{
		{"load", "r1 = 16\n r0 = *(u64 *)(r1 - 24)\n exit", end{1, -8, bpfjit.ErrFault, 3}},
		{"store", "r1 = -1\n *(u8 *)(r1 + 32767) = 1\n exit", end{1, 0xffffffff + 32767, bpfjit.ErrFault, 3}},
		{"across the edge", "r1 = 0x11ffc\n *(u64 *)(r1 + 0) = -1\n exit", end{1, 0x11ffc, bpfjit.ErrFault, 3}},
		{"store of r10", "r1 = 4096\n *(u64 *)(r1 + 8) = r10\n exit", end{1, 4104, bpfjit.ErrFault, 3}},
		{"load to its own base", "r5 = 1\n r5 = *(u32 *)(r5 + 1)\n exit", end{1, 2, bpfjit.ErrFault, 3}},
		{"handle", "r1 = 0x70000000 ll\n r0 = *(u8 *)(r1 + 0)\n exit", end{2, 0x70000000, bpfjit.ErrFault, 3}},
		{"misaligned", "r1 = 1\n r2 = r10\n lock *(u64 *)(r2 - 12) += r1\n exit", end{2, abi.StackTop - 12, bpfjit.ErrFault, 4}},
		{"misaligned on the stack", "r1 = 1\n lock *(u32 *)(r10 - 10) += w1\n exit", end{1, abi.StackTop - 10, bpfjit.ErrFault, 3}},
		{"fetch", "r1 = 77\n r2 = 8\n r1 = atomic_fetch_or((u64 *)(r2 + 16), r1)\n exit", end{2, 24, bpfjit.ErrFault, 4}},
		{"cmpxchg", "r2 = 8\n r0 = cmpxchg_64(r2 + 8, r0, r1)\n exit", end{1, 16, bpfjit.ErrFault, 3}},
		{"load_acquire", "r2 = 8\n r3 = load_acquire((u64 *)(r2 + 8))\n exit", end{1, 16, bpfjit.ErrFault, 3}},
		{"store_release", "r2 = 8\n store_release((u64 *)(r2 + 8), r3)\n exit", end{1, 16, bpfjit.ErrFault, 3}},
		{"in a function", "call pc+1\n exit\n r0 = *(u8 *)(r0 + 0)\n exit", end{2, 0, bpfjit.ErrFault, 4}},
		{"loop", "r0 += 1\n goto -2", end{0, 0, bpfjit.ErrBudget, 100000}},
		{"helper", "r1 = 1\n call 4711\n exit", end{1, 0, own, 3}},
		{"unknown helper", "r1 = 4712\n callx r1\n exit", end{1, 0, abi.ErrHelper, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			engines(t, func(t *testing.T, e bpfjit.Engine) {
				p := program(t, e, test.text, func(o *bpfjit.Options) {
					o.Budget = 100001
					o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{4711: func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
						return 0, own
					}}
				})
				in, err := p.NewInstance()
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				_, err = in.Run(nil)
				var re *bpfjit.RunError
				if !errors.As(err, &re) {
					t.Fatalf("%v is no RunError", err)
				}
				got := end{re.Offset, re.Addr, re.Err, in.Used()}
				if diff := cmp.Diff(test.want, got, cmpopts.EquateErrors()); diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				if !errors.Is(err, test.want.Err) {
					t.Errorf("%v isn't %v", err, test.want.Err)
				}
				fault := errors.Is(err, bpfjit.ErrFault)
				if fault && (re.Signal != 0) != (e == bpfjit.EngineJIT) || !fault && re.Signal != 0 {
					t.Errorf("signal %v", re.Signal)
				}
			})
		})
	}
}

// TestBudget counts what a run uses up, and finds the same end whatever the
// engine: a loop of two instructions, and one before it.
func TestBudget(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		const text = "r0 = 10\n r0 += -1\n if r0 != 0 goto -2\n exit"
		for budget, want := range map[int64]error{3: bpfjit.ErrBudget, 30: bpfjit.ErrBudget, 31: nil, 40: nil, -1: nil, 0: nil} {
			p := program(t, e, text, func(o *bpfjit.Options) { o.Budget = budget })
			in, err := p.NewInstance()
			if err != nil {
				t.Fatal(err)
			}
			_, err = in.Run(nil)
			if !errors.Is(err, want) {
				t.Errorf("budget %d: %v after %d, want %v", budget, err, in.Used(), want)
			}
			if want == nil && in.Used() != 31 {
				t.Errorf("budget %d: used %d, want 31", budget, in.Used())
			}
			if budget > 0 && in.Used() > budget {
				t.Errorf("budget %d: used %d", budget, in.Used())
			}
			in.Close()
		}
	})
}

// TestHelpers calls Go functions, and checks what they get and give.
func TestHelpers(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		var trace bytes.Buffer
		add := func(env bpfjit.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
			b, err := env.Bytes(r1, r2)
			if err != nil {
				return 0, err
			}
			for i := range b {
				b[i]++
			}
			env.Print(fmt.Sprintf("%d %d %d", r3, r4, r5))
			if env.Map(r1) != nil {
				return 0, errors.New("a map")
			}
			return env.Now() + uint64(env.Random()) + uint64(env.CPU()), nil
		}
		p := program(t, e, `
			r3 = 3
			r4 = 4
			r5 = 5
			call 1000
			r0 += r1                ; helpers leave 0 in r1 to r5
			r0 += r5
			exit`, func(o *bpfjit.Options) {
			o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: add}
			o.Clock = func() uint64 { return 1000 }
			o.Random = func() uint32 { return 200 }
			o.CPU = 30
			o.Trace = &trace
		})
		mem := []byte{1, 2}
		r0, err := p.Run(mem)
		if r0 != 1230 || err != nil || mem[0] != 2 || mem[1] != 3 || trace.String() != "3 4 5\n" {
			t.Errorf("r0 %d, %v, memory %v, trace %q", r0, err, mem, trace.String())
		}
		p = program(t, e, "r2 = 9999\n call 1000\n exit", func(o *bpfjit.Options) {
			o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: add}
		})
		if _, err := p.Run(mem); !errors.Is(err, bpfjit.ErrFault) {
			t.Errorf("bytes that aren't mapped: %v", err)
		}
	})
}

// TestTraceOneByOne: the writer of Options.Trace gets whole lines, and the next one when
// it has returned, however many goroutines run programs that print.
func TestTraceOneByOne(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		const goroutines = 4
		w := new(slowWriter)
		p := program(t, e, within, helper(func(env bpfjit.Env, _, _, _, _, _ uint64) (uint64, error) {
			env.Print("a line")
			return 0, nil
		}), func(o *bpfjit.Options) { o.Trace = w })
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				if _, err := p.Run(nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if w.mixed.Load() || w.text.String() != strings.Repeat("a line\n", goroutines) {
			t.Errorf("written at the same time: %v; %q", w.mixed.Load(), w.text.String())
		}
	})
}

// slowWriter is a writer that takes its time, and notes whether another Write begins
// meanwhile.
type slowWriter struct {
	busy, mixed atomic.Bool
	text        bytes.Buffer
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if w.busy.Swap(true) {
		w.mixed.Store(true)
		return 0, errors.New("busy")
	}
	defer w.busy.Store(false)
	time.Sleep(5 * time.Millisecond)
	return w.text.Write(b)
}

// TestHelperPanics: a panic of a helper goes to the caller of Run, and the
// program goes on to be usable.
func TestHelperPanics(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "if r2 == 0 goto +1\n call 1000\n r0 = 7\n exit", func(o *bpfjit.Options) {
			o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
				panic("helper")
			}}
		})
		in, err := p.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range []func([]byte) (uint64, error){p.Run, in.Run} {
			for range 3 {
				func() {
					defer func() {
						if r := recover(); r != "helper" {
							t.Errorf("recovered %v", r)
						}
					}()
					run([]byte{1})
				}()
				if r0, err := run(nil); r0 != 7 || err != nil {
					t.Errorf("after a panic: %d, %v", r0, err)
				}
			}
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCompileErrors: what is refused, and what the error says.
func TestCompileErrors(t *testing.T) {
	for _, test := range []struct {
		code []byte
		want string
		is   error
	}{
		{nil, "test: has no instructions", nil},
		{[]byte{0x95, 0, 0}, "test: instruction 0: the code ends after 3 of 8 bytes", nil},
		{assemble(t, "r0 = 0"), "test: instruction 0 (r0 = 0): the program can go on behind its last instruction", nil},
		{assemble(t, "r10 = 0\nexit"), "test: instruction 0 (r10 = 0): dst is r10, which is read-only", nil},
		{assemble(t, "r0 = 0\n call 4711\nexit"), "test: instruction 1 (call 4711): there is no helper function 4711 (BuiltinFunc(4711)): not supported", bpfjit.ErrUnsupported},
		{assemble(t, "call 12\nexit"), "test: instruction 0 (call 12): there is no helper function 12 (FnTailCall): not supported", bpfjit.ErrUnsupported},
		{assemble(t, "r0 = *(u8 *)skb[1]\nexit"), "test: instruction 0 (r0 = *(u8 *)skb[1]): opcode is ld.abs.b, which is not supported", bpfjit.ErrUnsupported},
		{assemble(t, "r1 = map[fd:3]\nexit"), "test: instruction 0 (r1 = map[fd:3]): src makes it ld.map_fd, a reference that no loader has resolved", nil},
	} {
		_, err := bpfjit.CompileBytes(test.code, &bpfjit.Options{Name: "test"})
		var ce *bpfjit.CompileError
		if !errors.As(err, &ce) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%x: %v\nwant %s", test.code, err, test.want)
		}
		if test.is != nil && (!errors.Is(err, test.is) || !errors.Is(err, errors.ErrUnsupported)) {
			t.Errorf("%v isn't %v", err, test.is)
		}
	}
}

// TestErrorForms shows the long forms.
func TestErrorForms(t *testing.T) {
	_, err := bpfjit.Compile(asm.Instructions{
		asm.Mov.Imm(asm.R0, 1).WithSource(asm.Comment("x = 1;")),
		asm.Add.Imm(asm.R0, 1),
		asm.Instruction{OpCode: asm.Mov.Op(asm.ImmSource), Dst: 10},
		asm.Return().WithSource(asm.Comment("return x;")),
	}, &bpfjit.Options{Name: "long"})
	want := `long: instruction 2 (r10 = 0): dst is r10, which is read-only
        ; x = 1;
      0: r0 = 1
      1: r0 += 1
>     2: r10 = 0
        ; return x;
      3: exit
`
	if diff := cmp.Diff(want, fmt.Sprintf("%+v", err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if short := fmt.Sprintf("%v", err); short != strings.Split(want, "\n")[0] || fmt.Sprintf("%s", err) != short || err.Error() != short {
		t.Errorf("%v", err)
	}
	if got, want := fmt.Sprintf("%q", err), fmt.Sprintf("%q", err.Error()); got != want {
		t.Errorf("%s, want %s", got, want)
	}

	p := program(t, bpfjit.EngineInterpreter, "r1 = 0x1234567890 ll\n r0 = *(u8 *)(r1 + 1)\n exit")
	_, err = p.Run(nil)
	want = `test: instruction 2 (r0 = *(u8 *)(r1 + 1)): memory fault at 0x34567891
      0: r1 = 0x1234567890 ll
>     2: r0 = *(u8 *)(r1 + 1)
      3: exit
`
	if diff := cmp.Diff(want, fmt.Sprintf("%+v", err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
