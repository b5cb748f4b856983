package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"golang.org/x/sys/unix"
)

// envVictim makes the test binary a process that hardens the kernel and waits
// to be killed.
const envVictim = "BPFJIT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) != "" {
		victim()
	}
	os.Exit(m.Run())
}

func victim() {
	lock, err := acquire(unix.LOCK_EX)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := setHarden(lock, "2"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("hardened")
	time.Sleep(time.Hour)
}

func harden(t *testing.T) string {
	t.Helper()
	s, err := readSysctl(hardenPath)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// blinded looks for AX, which only what blinding inserts uses.
func blinded(insns []abi.Insn) bool {
	for _, in := range insns {
		if in.Dst() == abi.AX {
			return true
		}
	}
	return false
}

var constant = []abi.Insn{{Op: 0xb7, Imm: 0x12345678}, {Op: abi.OpExit}}

func translated(t *testing.T, insns []abi.Insn) []abi.Insn {
	t.Helper()
	p, err := Load(&Spec{Type: SocketFilter, Insns: insns})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	i, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	return i.Xlated
}

func TestWithHarden2(t *testing.T) {
	ran := false
	WithHarden2(t, func() {
		ran = true
		if h := harden(t); h != "2" {
			t.Errorf("bpf_jit_harden is %s", h)
		}
		if !blinded(translated(t, constant)) {
			t.Error("the program isn't blinded")
		}
		// This jump must not reach the kernel.
		far := make([]abi.Insn, 33000)
		for i := range far {
			far[i] = abi.Insn{Op: 0xb7}
		}
		far[32990] = abi.Insn{Op: 0x15, Off: -32768}
		if p, err := Load(&Spec{Type: SocketFilter, Insns: far}); !errors.Is(err, ErrDangerous) {
			t.Errorf("a dangerous program: %v, %v", p, err)
		}
		// Nobody else holds the lock, shared or not.
		if f, err := os.OpenFile(LockFile, os.O_RDWR, 0); err != nil {
			t.Error(err)
		} else {
			if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != unix.EWOULDBLOCK {
				t.Errorf("taking the lock shared meanwhile: %v", err)
			}
			f.Close()
		}
	})
	if !ran {
		t.Fatal("the function didn't run")
	}
	Require(t)
	if harden(t) == "0" && blinded(translated(t, constant)) {
		t.Error("blinded afterwards")
	}
}

// TestHardenPanic: the old value comes back when the function panics.
func TestHardenPanic(t *testing.T) {
	var within string
	func() {
		defer func() {
			if r := recover(); r != "oops" && !t.Skipped() {
				t.Errorf("recovered %v", r)
			}
		}()
		WithHarden2(t, func() {
			within = harden(t)
			panic("oops")
		})
	}()
	Require(t)
	if now := harden(t); within != "2" || now == "2" {
		t.Errorf("bpf_jit_harden was %s within and is %s afterwards", within, now)
	}
}

// TestHardenKilled kills a process that hardened the kernel. Whoever gets the
// lock after it must find the old value.
func TestHardenKilled(t *testing.T) {
	if err := Available(); err != nil {
		unavailable(t, err)
	}
	lock, err := acquire(unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	before := harden(t)
	lock.Close()
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGINT} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envVictim+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != "hardened" {
			cmd.Process.Kill()
			cmd.Wait()
			t.Skipf("the other process: %q, %v", line, err)
		}
		if now := harden(t); now != "2" {
			t.Errorf("bpf_jit_harden is %s while the other process lives", now)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		lock, err := acquire(unix.LOCK_SH)
		if err != nil {
			t.Fatal(err)
		}
		if now := harden(t); now != before {
			t.Errorf("%v: bpf_jit_harden is %s, was %s", sig, now, before)
		}
		lock.Close()
	}
}

// fakeTB records how a test would have ended.
type fakeTB struct {
	name     string
	outcome  string
	cleanups []func()
}

func (f *fakeTB) Helper()           {}
func (f *fakeTB) Name() string      { return f.name }
func (f *fakeTB) Cleanup(fn func()) { f.cleanups = append(f.cleanups, fn) }
func (f *fakeTB) Skipf(format string, args ...any) {
	f.outcome = "skip: " + fmt.Sprintf(format, args...)
	panic(f)
}
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.outcome = "fatal: " + fmt.Sprintf(format, args...)
	panic(f)
}

// run calls fn as a test.
func (f *fakeTB) run(fn func()) {
	defer func() {
		if r := recover(); r != nil && r != f {
			panic(r)
		}
		for _, c := range f.cleanups {
			c()
		}
	}()
	fn()
}

// TestHardenWithinRequire: waiting for oneself is found out.
func TestHardenWithinRequire(t *testing.T) {
	if err := Available(); err != nil {
		unavailable(t, err)
	}
	outer, inner := &fakeTB{name: "Outer"}, &fakeTB{name: "Outer/inner"}
	outer.run(func() {
		Require(outer)
		inner.run(func() { WithHarden2(inner, func() { t.Error("it ran") }) })
	})
	if !strings.HasPrefix(inner.outcome, "fatal: BUG: Outer holds the lock") {
		t.Errorf("outcome %q", inner.outcome)
	}
}

func TestUnavailable(t *testing.T) {
	t.Setenv(EnvRequire, "")
	tb := &fakeTB{name: "T"}
	tb.run(func() { unavailable(tb, ErrUnavailable) })
	if !strings.HasPrefix(tb.outcome, "skip: needs a live kernel: ") {
		t.Errorf("outcome %q", tb.outcome)
	}
	t.Setenv(EnvRequire, "1")
	tb.run(func() { unavailable(tb, ErrUnavailable) })
	if !strings.HasPrefix(tb.outcome, "fatal: BPFJIT_REQUIRE_KERNEL=1, but: ") {
		t.Errorf("outcome %q", tb.outcome)
	}
}
