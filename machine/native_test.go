//go:build linux && amd64 && !purego

package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/image"
)

// arrays are what the tests of native lookups have at handles 0 to 3.
var arrays = []abi.Array{
	{Limit: 5, Base: abi.SharedBase, Step: 8},
	{}, // not an array
	{Limit: 1, Base: abi.SharedBase + 0x1000, Step: 4096},
	{Limit: 0xffff, Base: abi.SharedBase + 0x10000, Step: 0x7fe8},
}

// left is what the Go function says to whom a native helper has left a call.
const left = 0x1ef7

// withNative returns helpers 1 and 8 in native code, and a count of the calls
// that reached Go.
func withNative(calls *int) *Helpers {
	f := func(_ abi.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
		*calls++
		return left, nil
	}
	return NewHelpers(map[uint32]abi.HelperFunc{1: f, 8: f, 15: f}).WithNative(map[uint32]Native{1: NativeLookup, 8: NativeCPU})
}

// TestNativeLookup: what is looked up natively, what is left to Go, and that
// the program can't tell which, by its registers, stack and slice.
func TestNativeLookup(t *testing.T) {
	g := newRig(t)
	calls := 0
	in := input{Input: Input{Budget: 1000, Helpers: withNative(&calls), Arrays: arrays}}
	const key = abi.StackTop - 4
	for _, c := range []struct {
		handle, addr uint64
		key          uint32
		want         uint64
	}{
		{abi.MapHandle(0), key, 0, abi.SharedBase},
		{abi.MapHandle(0), key, 4, abi.SharedBase + 32},
		{abi.MapHandle(0), key, 5, 0},
		{abi.MapHandle(0), key, 1<<32 - 1, 0},
		{abi.MapHandle(0), abi.StackBase, 3, abi.SharedBase + 24},
		{abi.MapHandle(0), abi.StackBase + 1, 3, abi.SharedBase + 24},
		{abi.MapHandle(0), key | 0xabcd<<32, 3, abi.SharedBase + 24}, // addresses have 32 bits
		{abi.MapHandle(2), key, 0, abi.SharedBase + 0x1000},
		{abi.MapHandle(2), key, 1, 0},
		{abi.MapHandle(3), key, 0xfffe, abi.SharedBase + 0x10000 + 0xfffe*0x7fe8},
		{abi.MapHandle(3), key, 0xffff, 0},

		{abi.MapHandle(1), key, 0, left}, // not an array
		{abi.MapHandle(4), key, 0, left}, // not known
		{abi.MapHandle(abi.MaxHandles - 1), key, 0, left},
		{abi.FuncHandle(0), key, 0, left},
		{abi.MapHandle(0) + 1, key, 0, left}, // not a handle
		{abi.MapHandle(0) - 1, key, 0, left},
		{abi.MapHandle(0) + abi.HandleStep/2, key, 0, left},
		{abi.MapHandle(0) | 1<<32, key, 0, left},
		{abi.MapHandle(0) | 1<<63, key, 0, left},
		{0, key, 0, left},
		{1<<64 - 1, key, 0, left},
		{abi.MapHandle(0), abi.StackBase - 1, 0, left}, // not all on the stack
		{abi.MapHandle(0), abi.StackTop - 3, 0, left},
		{abi.MapHandle(0), abi.StackTop, 0, left},
		{abi.MapHandle(0), abi.CtxBase, 0, left},
		{abi.MapHandle(0), 0, 0, left},
		{abi.MapHandle(0), 1<<32 - 1, 0, left},
	} {
		calls = 0
		stack := g.inst.Stack()
		clear(stack)
		if at := int(uint32(c.addr)) - abi.StackBase; at >= 0 && at <= abi.StackSize-4 {
			binary.LittleEndian.PutUint32(stack[at:], c.key)
		}
		in.R1, in.R2 = c.handle, c.addr
		out := g.run(in, keeps(1)) // ends in ud2 if registers aren't kept
		wantCalls := 0
		if c.want == left {
			wantCalls = 1
		}
		if out.Stop != abi.StopExit || out.R0 != c.want || out.Used != 3 || calls != wantCalls {
			t.Errorf("map %#x, key %d at %#x: %#x, want %#x; %d calls of Go, want %d: %+v",
				c.handle, c.key, c.addr, out.R0, c.want, calls, wantCalls, out)
		}
	}
}

// TestNativeRegisters: behind a native helper R1 to R5 are 0 and all others as
// before.
func TestNativeRegisters(t *testing.T) {
	g := newRig(t)
	calls := 0
	in := input{Input: Input{Helpers: withNative(&calls), Arrays: arrays, CPU: 0xfffffff7}}
	for _, c := range []struct {
		helper int
		key    uint32
		want   uint64
	}{{1, 2, abi.SharedBase + 16}, {1, 7, 0}, {8, 0, 0xfffffff7}} {
		binary.LittleEndian.PutUint32(g.inst.Stack(), c.key)
		out := g.run(in, setAll,
			"bf 00 00 00 70 ; mov edi, 0x70000000",
			"be 00 00 01 00 ; mov esi, 0x10000",
			"6a 2a          ; push 0x2a",
			callHelper(c.helper),
			"59             ; pop rcx",
			"0f 0b          ; ud2")
		if want := [11]uint64{c.want, 0, 0, 0, 0x2a, 0, 0x13, 0x1d, 0x1e, 0x1f, 0x15}; out.R != want || calls != 0 {
			t.Errorf("helper %d: registers %x, want %x; %d calls of Go", c.helper, out.R, want, calls)
		}
	}
}

// TestNativeNumbers: no number but its own leads to native code, and none
// without any.
func TestNativeNumbers(t *testing.T) {
	g := newRig(t)
	calls := 0
	native := input{Input: Input{Helpers: withNative(&calls), Arrays: arrays, CPU: 3}}
	plain := native
	plain.Helpers = NewHelpers(map[uint32]abi.HelperFunc{8: func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
		return 99, nil
	}})
	for _, n := range []int{8, 0, 1<<31 | 8, 1 << 31, abi.NativeHelpers - 1, abi.NativeHelpers, abi.NativeHelpers + 1, 1<<32 - 1} {
		for name, in := range map[string]input{"native": native, "plain": plain, "none": {}} {
			out := g.run(in, callHelper(n), "c3 ; ret")
			switch f := in.Helpers.Lookup(uint32(n)); {
			case f == nil:
				if out.Err != abi.UnknownHelper(n) {
					t.Errorf("%s: helper %d: %+v", name, n, out)
				}
			case n == 8 && name == "native":
				if out.R0 != 3 {
					t.Errorf("%s: helper %d: %+v", name, n, out)
				}
			default:
				if want, _ := f(nil, 0, 0, 0, 0, 0); out.R0 != want {
					t.Errorf("%s: helper %d: %+v", name, n, out)
				}
			}
		}
	}
	// The number in a register: the upper half isn't looked at.
	native.R1 = 0xfffff00000008
	out := g.run(native, "48 89 f8 ; mov rax, rdi", "41 ff 94 24"+word(abi.ContextOffset+abi.OffHelperStub), "c3 ; ret")
	if out.R0 != 3 {
		t.Errorf("by register: %+v", out)
	}
}

func TestWithNativeRefuses(t *testing.T) {
	f := func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 0, nil }
	for _, n := range []uint32{2, abi.NativeHelpers} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("helper %d: no panic", n)
				}
			}()
			NewHelpers(map[uint32]abi.HelperFunc{1: f, abi.NativeHelpers: f}).WithNative(map[uint32]Native{n: NativeCPU})
		}()
	}
}

// lookups is an endless loop of native lookups, by a helper's number: most of its time passes in
// text of the Go program, on the native stack. With a charge it can be stopped.
func lookups(helper int, charged bool) string {
	var b strings.Builder
	if charged {
		b.WriteString(charge(1) + "\n")
	}
	for range 50 {
		fmt.Fprintf(&b, "bf 00 00 00 70 ; mov edi, 0x70000000\nbe 00 00 01 00 ; mov esi, 0x10000\n%s\n", callHelper(helper))
	}
	n := 50 * (5 + 5 + callHelperLen)
	if charged {
		n += chargeLen
	}
	return b.String() + fmt.Sprintf("e9 %s ; (jmp to the beginning)", word(-n-5))
}

var errEnough = errors.New("enough")

//go:noinline
func lookUpAWhile(g *rig, in input, im *image.Image) Result { return g.runImage(in, im) }

// TestNativeProfile: time in native helpers is Run's and its callers', too.
func TestNativeProfile(t *testing.T) {
	g := newRig(t)
	calls := 0
	helpers := withNative(&calls)
	im := load(t, assemble(t, lookups(1, true)))
	profiled(t, "machine.lookUpAWhile", func(stop *atomic.Bool) {
		lookUpAWhile(g, input{Input: Input{Budget: -1, Helpers: helpers, Arrays: arrays, Poll: func() error {
			if stop.Load() {
				return errEnough
			}
			return nil
		}}}, im)
	})
	if calls != 0 {
		t.Errorf("%d calls of Go", calls)
	}
}
