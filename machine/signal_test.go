//go:build linux && amd64 && !purego

package machine

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/profile"
)

func handler(t *testing.T, s unix.Signal) uintptr {
	t.Helper()
	var a action
	if err := getAction(s, &a); err != nil {
		t.Fatal(err)
	}
	return a.handler
}

func setHandler(t *testing.T, s unix.Signal, h uintptr) {
	t.Helper()
	var a action
	if err := getAction(s, &a); err != nil {
		t.Fatal(err)
	}
	a.handler = h
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a)), 0, maskSize, 0, 0); e != 0 {
		t.Fatal(e)
	}
}

func hooked(t *testing.T, s unix.Signal) bool {
	h := handler(t, s)
	return h == faultAddr || h == sampleAddr
}

// TestOSSignal: os/signal never takes the hooks of faults, and what it takes
// of the others comes back with the next Check. What it does works as ever.
func TestOSSignal(t *testing.T) {
	g := newRig(t)
	all := append(faults[:], samples[:]...)
	check := func(when string, want bool, signals ...unix.Signal) {
		t.Helper()
		for _, s := range signals {
			if hooked(t, s) != want {
				t.Errorf("%s: %s hooked: %v", when, unix.SignalName(s), !want)
			}
		}
		stillAlive(t, g)
		if out := g.run(input{}, "0f 0b ; ud2"); out.Signal != int(unix.SIGILL) {
			t.Errorf("%s: %+v", when, out)
		}
	}
	check("at first", true, all...)

	ch, quit := make(chan os.Signal, 10), make(chan os.Signal, 1)
	signal.Notify(ch)
	// On a channel of its own: SIGURG comes by itself, as often as it likes.
	signal.Notify(quit, unix.SIGQUIT)
	check("after Notify", true, all...)
	if err := unix.Kill(os.Getpid(), unix.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-quit
	signal.Stop(ch)
	signal.Stop(quit)
	check("after Stop", true, all...)

	signal.Ignore(unix.SIGQUIT, unix.SIGSEGV, unix.SIGFPE, unix.SIGPROF)
	check("after Ignore", true, faults[:]...)
	check("after Ignore", false, unix.SIGQUIT)
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	check("an ignored signal stays ignored", false, unix.SIGQUIT)
	signal.Notify(ch, unix.SIGQUIT)
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	check("after Notify and Check", true, all...)
	signal.Stop(ch)
	signal.Reset()
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	check("after Reset", true, all...)
}

// TestCheck: a hook that was taken away is put back if Go's handler is there,
// and refused if nobody knows whose it is.
func TestCheck(t *testing.T) {
	g := newRig(t)
	for _, s := range faults {
		setHandler(t, s, previous[s])
		if hooked(t, s) {
			t.Fatal("not taken away")
		}
		if err := Check(); err != nil || !hooked(t, s) {
			t.Errorf("%s: %v, hooked: %v", unix.SignalName(s), err, hooked(t, s))
		}
		for _, foreign := range []uintptr{0, 1, sliceAddr} {
			setHandler(t, s, foreign)
			err := Check()
			setHandler(t, s, faultAddr)
			var hook *HookError
			if !errors.As(err, &hook) || hook.Signal != s {
				t.Errorf("%s with handler %#x: %v", unix.SignalName(s), foreign, err)
			}
		}
	}
	if err := Check(); err != nil {
		t.Error(err)
	}
	stillAlive(t, g)
}

// TestRecheck: Recheck is a Check once some time has passed, or none has been made
// that returned nil.
func TestRecheck(t *testing.T) {
	g := newRig(t)
	const s = unix.SIGFPE
	for _, x := range []struct {
		what string
		age  time.Duration
		want bool
	}{{"fresh", -time.Hour, false}, {"old", recheckAfter, true}} {
		setHandler(t, s, previous[s])
		hooks.checked.Store(int64(time.Since(epoch) - x.age))
		if err := Recheck(); err != nil || hooked(t, s) != x.want {
			t.Errorf("%s: %v, hooked: %v", x.what, err, hooked(t, s))
		}
	}
	setHandler(t, s, 0)
	err1, err2 := Check(), Recheck()
	setHandler(t, s, faultAddr)
	if err1 == nil || err2 == nil {
		t.Errorf("a foreign handler: %v, %v", err1, err2)
	}
	stillAlive(t, g)
}

// TestShadowStacks: where threads have them, code can't be run.
func TestShadowStacks(t *testing.T) {
	defer func(f func() uint64) { threadFeatures = f }(threadFeatures)
	for features, want := range map[uint64]error{0: nil, shadowStack: errShadowStack, 3: errShadowStack, 2: nil} {
		threadFeatures = func() uint64 { return features }
		if err := Available(); err != want {
			t.Errorf("features %d: %v", features, err)
		}
	}
}

// runAWhile runs an endless loop until stop is closed. Its name is looked for
// in profiles and dumps.
//
//go:noinline
func runAWhile(g *rig, code []byte, stop *atomic.Bool) Result {
	enough := errors.New("enough")
	return g.runImage(input{Input: Input{Budget: -1, Poll: func() error {
		if stop.Load() {
			return enough
		}
		return nil
	}}}, load(g.t, code))
}

// profiled takes profiles of f, which runs code for a while, until there are
// samples of it. Nothing is said of how many. All of them must have whole
// stacks: machine.once, f's function called name, and the test.
func profiled(t *testing.T, name string, f func(stop *atomic.Bool)) {
	t.Helper()
	position := func(s profile.Sample, part string) int {
		return slices.IndexFunc(s.Stack, func(f string) bool {
			// What the driver calls is a function within name's.
			return strings.Contains(f, part) && !strings.Contains(f, ".func")
		})
	}
	for range 20 {
		samples, err := profile.Take(func() {
			var stop atomic.Bool
			time.AfterFunc(200*time.Millisecond, func() { stop.Store(true) })
			f(&stop)
		})
		if err != nil {
			t.Skip("another profile is being taken:", err)
		}
		whole := false
		for _, s := range samples {
			for _, part := range []string{"_ExternalCode", "machine.nativeLookup", "machine.helperStub"} {
				if part == "_ExternalCode" && raceDetector {
					continue // it is the detector that atomic operations call
				}
				if position(s, part) >= 0 {
					t.Errorf("a sample is %q", s.Stack)
				}
			}
			enter, run, caller, test := position(s, "machine.(*Frame)."), position(s, "machine.once"), position(s, name), position(s, t.Name())
			if enter < 0 {
				continue
			}
			if whole = enter < run && run < caller && caller < test; !whole {
				t.Errorf("a sample is %q", s.Stack)
			}
		}
		if whole || t.Failed() {
			return
		}
	}
	t.Error("no sample has machine.once")
}

// TestProfile: the profiler finds the time spent in generated code at Run and
// its callers.
func TestProfile(t *testing.T) {
	g := newRig(t)
	code := assemble(t, endless(1))
	profiled(t, "machine.runAWhile", func(stop *atomic.Bool) { runAWhile(g, code, stop) })
}

// TestDump: a signal that ends the process while a thread is in generated code,
// or in native helpers, leaves a complete dump of all goroutines.
func TestDump(t *testing.T) {
	const child = "BPFJIT_TEST_DUMP"
	if name, where, _ := strings.Cut(os.Getenv(child), " in "); name != "" {
		g := newRig(t)
		waiting := make(chan bool)
		go func() { dumpedToo(waiting) }()
		<-waiting
		tid := make(chan int, 1)
		go func() {
			thread := <-tid
			time.Sleep(50 * time.Millisecond) // the helper has returned
			unix.Tgkill(os.Getpid(), thread, unix.SignalNum(name))
			time.Sleep(5 * time.Minute) // the signal ends it long before
			os.Exit(0)
		}()
		sent := false
		// Without slices: the thread stays in the loop for good.
		loop := "eb fe ; (jmp to itself)"
		if where == "helpers" {
			loop = lookups(1, false)
		}
		helpers := NewHelpers(map[uint32]abi.HelperFunc{2: func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
			if !sent {
				sent = true
				tid <- unix.Gettid()
			}
			return 0, nil
		}, 1: notCalled}).WithNative(map[uint32]Native{1: NativeLookup})
		g.run(input{Input: Input{Helpers: helpers, Arrays: arrays}}, callHelper(2), loop)
		return
	}
	for _, test := range []string{
		"SIGQUIT in code", "SIGABRT in code", "SIGSEGV in code", "SIGTRAP in code", "SIGILL in code",
		"SIGQUIT in helpers", "SIGABRT in helpers", "SIGSEGV in helpers",
	} {
		t.Run(test, func(t *testing.T) {
			t.Parallel()
			s, _, _ := strings.Cut(test, " ")
			cmd := exec.Command(os.Args[0], "-test.run=^TestDump$")
			// A thread that stays in the loop keeps its P, and no stop of the world
			// ends: another P has to be there to send the signal, and no collector.
			cmd.Env = append(os.Environ(), child+"="+test, "GOTRACEBACK=all", "GOMAXPROCS=2", "GOGC=off")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT {
				t.Errorf("ended with %v", err)
			}
			dump := out.String()
			for _, want := range []string{"machine.once(", "machine.TestDump(", "machine.dumpedToo(", s + ":"} {
				if !strings.Contains(dump, want) {
					t.Errorf("the dump has no %q", want)
				}
			}
			for _, not := range []string{"panic during", "unexpected signal during", "out of range"} {
				if strings.Contains(dump, not) {
					t.Errorf("the dump has %q", not)
				}
			}
			if t.Failed() {
				t.Log(dump)
			}
		})
	}
}

func notCalled(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
	panic("the native helper left a call to Go")
}

//go:noinline
func dumpedToo(c chan bool) {
	c <- true
	<-c
}
