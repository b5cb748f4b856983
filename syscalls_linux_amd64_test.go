//go:build !purego && !race

package bpfjit_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/machine"
)

// tracedEnv names what a child of this test does while its system calls are
// counted.
const tracedEnv = "BPFJIT_TRACED"

func init() {
	if name := os.Getenv(tracedEnv); name != "" {
		// This is the thread that is traced. It is this goroutine's until main
		// begins.
		traced[name]()
		os.Exit(0)
	}
}

// rounds is how often something is done while system calls are counted.
const rounds = 5000

// traced does something often: first to make memory ready, and then between two
// marks.
var traced = map[string]func(){
	"publish": func() {
		region := must(image.Default())
		repeatedly(func() { must(region.Publish([]byte{0x31, 0xc0, 0xc3}, nil, nil)).Free() })
	},
	"life": func() {
		code := []byte{0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0} // r0 = 1, exit
		opts := bpfjit.Options{Engine: bpfjit.EngineJIT, Space: bpfjit.NewSpace()}
		repeatedly(func() {
			p := must(bpfjit.CompileBytes(code, &opts))
			if must(p.Run(nil)) != 1 {
				panic("R0 isn't 1")
			}
			if err := p.Close(); err != nil {
				panic(err)
			}
		})
	},
}

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func repeatedly(f func()) {
	debug.SetGCPercent(-1)
	mark := func() { unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }
	// The heap takes from the system what follows, and a little more, before that.
	heap := make([][]byte, 128)
	for i := range heap {
		heap[i] = make([]byte, 1<<20)
	}
	for range rounds + rounds/10 {
		f()
	}
	runtime.KeepAlive(heap)
	heap = nil
	runtime.GC()
	mark()
	for range rounds {
		f()
	}
	mark()
}

// systemCalls runs a part of traced in a child and counts the system calls that
// it makes between its marks, by number, and how long that takes at most.
func systemCalls(t *testing.T, name string) (calls map[uint64]int, length time.Duration) {
	t.Helper()
	runtime.LockOSThread() // a thread traces
	defer runtime.UnlockOSThread()
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), tracedEnv+"="+name)
	child.Stdout, child.Stderr = output, output
	child.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); errors.Is(err, unix.EPERM) {
		t.Skipf("ptrace: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	wait := func() (status unix.WaitStatus) {
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err == nil {
				return status
			} else if err != unix.EINTR {
				t.Fatalf("wait4: %v", err)
			}
		}
	}
	status := wait()
	const systemCall = unix.SIGTRAP | 0x80
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		t.Fatalf("ptrace: %v", err)
	}
	calls = map[uint64]int{}
	var marks [2]time.Time
	marked, inside := 0, false
	for pass := unix.Signal(0); !status.Exited() && !status.Signaled(); {
		if err := unix.PtraceSyscall(pid, int(pass)); err != nil {
			t.Fatalf("ptrace: %v", err)
		}
		status, pass = wait(), 0
		switch s := status.StopSignal(); {
		case !status.Stopped():
		case s != systemCall:
			pass = s
		default:
			if inside = !inside; !inside {
				continue // it returns
			}
			var regs unix.PtraceRegs
			if err := unix.PtraceGetRegs(pid, &regs); err != nil {
				t.Fatalf("ptrace: %v", err)
			}
			if regs.Orig_rax == unix.SYS_GETPPID && marked < len(marks) {
				marks[marked] = time.Now()
				marked++
			} else if marked == 1 {
				calls[regs.Orig_rax]++
			}
		}
	}
	if status.ExitStatus() != 0 || marked != len(marks) {
		text, _ := os.ReadFile(output.Name())
		t.Fatalf("the child ended with %d and %d marks:\n%s", status.ExitStatus(), marked, text)
	}
	return calls, marks[1].Sub(marks[0])
}

// TestSystemCalls: neither publishing a tiny program, nor all of its life, takes a
// system call, but for what is done once for many: ending the quarantine of 64 KiB
// of freed code, and looking whether faults still lead here.
//
// A call for each program would be seen thousands of times. Go's runtime makes a few
// of its own, whenever it likes, whose numbers depend on its version and on the
// machine: a few of any kind are allowed, and an unlucky count is taken again.
func TestSystemCalls(t *testing.T) {
	if err := machine.Check(); err != nil {
		t.Skip(err)
	}
	const tries = 3
	for _, name := range []string{"publish", "life"} {
		t.Run(name, func(t *testing.T) {
			var err error
			for range tries {
				calls, length := systemCalls(t, name)
				t.Logf("system calls of %d rounds in %v, by number: %v", rounds, length, calls)
				if err = tooMany(calls, length); err == nil {
					return
				}
			}
			t.Errorf("the last of %d tries: %v", tries, err)
		})
	}
}

// tooMany finds what calls has too many of for rounds programs in a time.
func tooMany(calls map[uint64]int, length time.Duration) error {
	const (
		perQuarantine = 64 << 10 / 64 // programs
		handlers      = 8             // that machine.Check looks at
		period        = 10 * time.Millisecond
		signal        = 8 // calls around a signal that the runtime sends itself, at most
	)
	periods := int(length/period) + 2 // a slow machine has more of them
	own := 0
	for number, n := range calls {
		allowed := 0
		switch number {
		case unix.SYS_MEMBARRIER:
			allowed = 2 * (rounds/perQuarantine + 1)
		case unix.SYS_RT_SIGACTION:
			allowed = handlers * periods
		default:
			own += n
			continue
		}
		if n > allowed {
			return fmt.Errorf("system call %d: %d, at most %d are allowed", number, n, allowed)
		}
	}
	// The runtime takes memory for its books, starts and wakes threads, and stops a
	// goroutine once in a period by a signal.
	if allowed := min(rounds/500+signal*periods, rounds/2); own > allowed {
		return fmt.Errorf("%d system calls of other kinds, at most %d are allowed", own, allowed)
	}
	return nil
}
