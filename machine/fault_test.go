//go:build linux && amd64 && !purego

package machine

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/image"
)

// load64 is an access as the compiler emits it: the address in edi, and off.
func load64(off int) string {
	return "41 89 fb ; mov r11d, edi\n4b 8b 84 1c" + word(off) + "; (mov rax, [r12+r11+off])"
}

func TestFaults(t *testing.T) {
	g := newRig(t)
	const (
		segv = int(unix.SIGSEGV)
		ill  = int(unix.SIGILL)
		trap = int(unix.SIGTRAP)
		fpe  = int(unix.SIGFPE)
	)
	for _, tt := range []struct {
		name   string
		r1     uint64
		code   string
		signal int
		pc     int
		addr   int64 // -1: none
	}{
		{"null", 0, load64(0), segv, 3, 0},
		{"null region's end", abi.StackBase - 8, load64(0), segv, 3, abi.StackBase - 8},
		{"not mapped", abi.HandleBase, load64(16), segv, 3, abi.HandleBase + 16},
		{"upper guard", 0xfffffff8, load64(0x7fff), segv, 3, 0xfffffff8 + 0x7fff},
		{"lower guard", 0, load64(-0x8000), segv, 3, -0x8000},
		{"half mapped", abi.StackTop - 4, load64(0), segv, 3, abi.StackTop},
		{"upper half ignored", 0xffff_ffff_0000_1000, load64(0), segv, 3, 0x1000},
		{"store", 0x1234, "41 89 fb ; mov r11d, edi\n4f 89 2c 1c ; mov qword ptr [r12+r11], r13", segv, 3, 0x1234},
		{"not canonical", 0x1234567812345678, "90 ; nop\n48 8b 07 ; mov rax, qword ptr [rdi]", segv, 1, -1},
		{"far from the window", 0, "48 8b 07 ; mov rax, qword ptr [rdi]", segv, 0, -1},
		{"division by zero", 0, "31 c9 ; xor ecx, ecx\n31 d2 ; xor edx, edx\nf7 f1 ; div ecx", fpe, 4, -1},
		{"ud2", 0, "90 ; nop\n0f 0b ; ud2", ill, 1, -1},
		{"int3", 0, "90 ; nop\ncc ; int3", trap, 1, -1},
		{"native stack overflow", 0, "50 ; push rax\neb fd ; (jmp back)", segv, 0, -2},
		{"call that overflows", 0, "e8 fb ff ff ff ; (call itself)", segv, 0, -2},
		{"fall off the end", 0, "90 ; nop", trap, 1, -1},
		{"privileged", 0, "f4 ; hlt", segv, 0, -1},
		{"single step", 0, "68 00 01 00 00 ; push 0x100\n9d ; popfq\n90 ; nop", trap, 6, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := load(t, assemble(t, tt.code))
			for range 3 {
				out := g.runImage(input{R1: tt.r1, R2: 77, Input: Input{Budget: 500}}, im)
				// The window's shared half ends in a file: SIGBUS.
				if out.Signal == int(unix.SIGBUS) && tt.r1 >= abi.SharedBase {
					out.Signal = segv
				}
				if out.Stop != abi.StopFault || out.Signal != tt.signal || out.PC != tt.pc || out.Code <= 0 {
					t.Fatalf("%+v", out)
				}
				if out.HasAddr != (tt.addr != -1 && tt.addr != -2) || out.HasAddr && out.Addr != tt.addr {
					// Below the native stack is another slot's guard.
					if tt.addr != -2 {
						t.Errorf("address %#x, %v", out.Addr, out.HasAddr)
					}
				}
				if out.R[1] != tt.r1 || out.R[2] != 77 || out.R[10] != abi.StackTop || out.Used != 0 || out.Cause() != abi.ErrFault {
					t.Errorf("%+v", out)
				}
			}
			stillAlive(t, g)
		})
	}
}

// stillAlive runs something that works.
func stillAlive(t *testing.T, g *rig) {
	t.Helper()
	if out := g.run(input{R1: 40}, "48 8d 47 02 ; lea rax, ptr [rdi+0x2]", "c3 ; ret"); out.R0 != 42 {
		t.Errorf("afterwards: %+v", out)
	}
}

// TestWildJumps: jumps that leave the code, or all code, are faults.
func TestWildJumps(t *testing.T) {
	g := newRig(t)
	r, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	lo, size := r.Range()
	base := uint64(uintptr(g.inst.Base()))
	for _, to := range []uint64{
		0, 0x1000, 1 << 63, 0x8000_0000_0000, 0xffff_8000_0000_0000, 0xffff_ffff_ff60_0000,
		uint64(lo) + uint64(size) - 1,       // never opened
		uint64(lo) + uint64(size)/2,         // the same
		base + abi.StackBase,                // memory of the guest
		base + 0x1000,                       // nothing there
		uint64(g.inst.NativeStackTop()),     // not executable
		uint64(g.inst.NativeStackTop()) - 8, // the same
	} {
		for _, how := range []string{"ff e7 ; jmp rdi", "ff d7 ; call rdi", "57 ; push rdi\nc3 ; ret"} {
			out := g.run(input{R1: to, Input: Input{Budget: 9}}, "90 ; nop", how)
			if out.Stop != abi.StopFault || out.Signal != int(unix.SIGSEGV) && out.Signal != int(unix.SIGBUS) {
				t.Errorf("%s to %#x: %+v", how, to, out)
			}
			if out.R[1] != to {
				t.Errorf("%s to %#x: R1 = %#x", how, to, out.R[1])
			}
		}
	}
	// Every other place of the image: a hole, or the exception table.
	code := assemble(t, "ff e7 ; jmp rdi")
	im := load(t, code)
	for off := -im.Start() - 1; off < im.Size()-im.Start()-8; off++ {
		if off >= 0 && off < im.Len() {
			continue
		}
		out := g.runImage(input{R1: uint64(im.Addr()) + uint64(off)}, im)
		if out.Stop != abi.StopFault {
			t.Errorf("jump to %+d: %+v", off, out)
		}
		if off >= 2 && (out.Signal != int(unix.SIGTRAP) || out.PC != off) {
			t.Errorf("jump to %+d: signal %d at %d", off, out.Signal, out.PC)
		}
	}
	stillAlive(t, g)
}

// TestFixUp: an access with an entry in the exception table clears its
// register and goes on; flags and all other registers survive.
func TestFixUp(t *testing.T) {
	g := newRig(t)
	const at, length = 13*7 + 1 + 6, 4
	code := assemble(t, setAll,
		"f9                ; stc",
		"41 bb 00 10 00 00 ; mov r11d, 0x1000",
		"4b 8b 0c 1c       ; mov rcx, qword ptr [r12+r11]",
		"48 83 d0 00       ; adc rax, 0x0",
		"0f 0b             ; ud2")
	want := [16]uint64{0x11, 0, 0x12, 0x13, 0, 0x15, 0x16, 0x17, 0x18, 0, 0x1a, 0x1000, 0, 0x1d, 0x1e, 0x1f}
	out := g.runImage(input{Input: Input{Budget: 100}}, load(t, code, image.NewEntry(at, length, abi.RCX)))
	got := g.regs()
	got[abi.RSP], got[abi.X86R9], got[abi.X86R12] = 0, 0, 0
	if out.Signal != int(unix.SIGILL) || out.PC != len(code)-2 || got != want || out.Used != 0 {
		t.Errorf("%+v; registers %x, want %x", out, got, want)
	}

	// A store has nothing to clear.
	out = g.runImage(input{}, load(t, code, image.NewEntry(at, length, -1)))
	if out.Signal != int(unix.SIGILL) || out.R[4] != 0x11 {
		t.Errorf("nothing to clear: %+v", out)
	}
	// Another instruction's entry is of no use.
	out = g.runImage(input{}, load(t, code, image.NewEntry(at-6, 6, abi.RCX), image.NewEntry(at+1, 3, abi.RCX)))
	if out.Signal != int(unix.SIGSEGV) || out.PC != at || out.R[4] != 0x11 {
		t.Errorf("no entry: %+v", out)
	}
	// Nor is one for what isn't an access to memory.
	out = g.runImage(input{}, load(t, code, image.NewEntry(at+8, 2, abi.RCX)))
	if out.Signal != int(unix.SIGSEGV) {
		t.Errorf("other fault: %+v", out)
	}
	ud2 := assemble(t, "0f 0b ; ud2", "c3 ; ret")
	out = g.runImage(input{}, load(t, ud2, image.NewEntry(0, 2, abi.RAX)))
	if out.Stop != abi.StopFault || out.Signal != int(unix.SIGILL) {
		t.Errorf("ud2 was passed over: %+v", out)
	}
}

// TestSharedEnd: behind the end of the shared memory a fault is SIGBUS.
func TestSharedEnd(t *testing.T) {
	g := newRig(t)
	addr, err := g.space.Alloc(1)
	if err != nil {
		t.Fatal(err)
	}
	out := g.run(input{R1: addr + abi.PageSize}, load64(0))
	want := Result{
		Result: abi.Result{Stop: abi.StopFault, Slot: -1, Addr: int64(addr + abi.PageSize)},
		PC:     3, Signal: out.Signal, Code: out.Code, HasAddr: true,
		R: [11]uint64{1: addr + abi.PageSize, 10: abi.StackTop}, R11: uint32(addr + abi.PageSize),
	}
	if d := cmp.Diff(want, out); d != "" || out.Signal != int(unix.SIGBUS) && out.Signal != int(unix.SIGSEGV) {
		t.Errorf("signal %d (-want +got):\n%s", out.Signal, d)
	}
	if out := g.run(input{R1: addr}, load64(0), "c3 ; ret"); out.Stop != abi.StopExit {
		t.Errorf("inside: %+v", out)
	}
}

//go:noinline
func deref(p *int) int { return *p }

//go:noinline
func divide(a, b int) int { return a / b }

// TestGoFaults: faults of Go code are the panics that they always were.
func TestGoFaults(t *testing.T) {
	g := newRig(t)
	caught := func(f func()) (msg string) {
		defer func() { msg = fmt.Sprint(recover()) }()
		f()
		return
	}
	for range 100 {
		if got := caught(func() { deref(nil) }); !strings.Contains(got, "nil pointer dereference") {
			t.Fatal(got)
		}
		if got := caught(func() { quotient = divide(1, 0) }); !strings.Contains(got, "divide by zero") {
			t.Fatal(got)
		}
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		if got := caught(func() { deref((*int)(g.inst.Base())) }); !strings.Contains(got, "invalid memory address") {
			t.Fatal(got)
		}
		stillAlive(t, g)
	}
	// The same within a helper: while a run is under way.
	helpers := NewHelpers(map[uint32]abi.HelperFunc{1: func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
		if got := caught(func() { deref(nil) }); !strings.Contains(got, "nil pointer dereference") {
			t.Error(got)
		}
		runtime.GC()
		return 5, nil
	}})
	if out := g.run(input{Input: Input{Helpers: helpers}}, callHelper(1), "c3 ; ret"); out.R0 != 5 {
		t.Errorf("%+v", out)
	}
}

var quotient int // keeps a result that nobody looks at
