//go:build linux && amd64 && !purego

package bpfjit_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/seccomp"
	"github.com/bpfjit/bpfjit/machine"
)

// TestSurroundings: where the system refuses what machine code needs, programs
// run in another way, and Info says why. Package machine has more of it.
func TestSurroundings(t *testing.T) {
	const child = "BPFJIT_TEST_SURROUNDINGS"
	if name := os.Getenv(child); name != "" {
		if err := restrict(name); err != nil {
			fmt.Printf("\nskip: %v\n", err)
			return
		}
		p := program(t, bpfjit.EngineAuto, "r0 = r2\nr0 += 40\nexit")
		r0, err := p.Run(make([]byte, 2))
		info := p.Info()
		fmt.Printf("\nfound: %d %v; engine %v because of %v; fallback because of %v, kept because of %v.\n",
			r0, err, info.Engine, info.Reason, info.Fallback, info.Kept)
		return
	}
	if err := machine.Available(); err != nil {
		t.Skip(err)
	}
	const (
		noWindow = "engine interp because of no memory windows: unsupported operation: "
		plain    = "; fallback because of <nil>, kept because of <nil>."
		refused  = "operation not permitted"
	)
	for name, want := range map[string]string{
		"nothing":       "engine jit because of <nil>" + plain,
		"memfd_noexec":  "engine jit because of <nil>; fallback because of memfd_create: permission denied, kept because of <nil>.",
		"file size":     "engine jit because of <nil>; fallback because of RLIMIT_FSIZE is 4096, kept because of <nil>.",
		"files":         noWindow + "memfd_create: too many open files" + plain,
		"address space": noWindow + "mapping shared memory: cannot allocate memory" + plain,
		"no memfd":      noWindow + "memfd_create: " + refused + plain,
		"no membarrier": "engine jit because of <nil>; fallback because of <nil>, kept because of membarrier: " + refused + ".",
		"no mprotect":   "engine interp because of image: 4096 bytes: mprotect: " + refused + plain,
	} {
		want = "42 <nil>; " + want
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestSurroundings$")
			cmd.Env = append(os.Environ(), child+"="+name)
			if name == "memfd_noexec" {
				if os.Geteuid() != 0 {
					t.Skip("takes root")
				}
				// A namespace of processes has a setting of its own.
				cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
			}
			out, err := cmd.CombinedOutput()
			if _, why, ok := strings.Cut(string(out), "\nskip: "); ok {
				t.Skip(why)
			}
			_, found, _ := strings.Cut(string(out), "\nfound: ")
			found, _, _ = strings.Cut(found, "\n")
			if err != nil || found != want {
				t.Errorf("%v\nwant %s\ngot  %s\n%s", err, want, found, out)
			}
		})
	}
}

func restrict(name string) error {
	limit := func(which int, n uint64) error {
		return unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n})
	}
	// The runtime makes its poller for the first file or timer, and doesn't survive
	// that it can't.
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	switch name {
	case "no memfd":
		return seccomp.Deny(unix.SYS_MEMFD_CREATE, seccomp.Always)
	case "no membarrier":
		return seccomp.Deny(unix.SYS_MEMBARRIER, seccomp.Always)
	case "no mprotect":
		return seccomp.Deny(unix.SYS_MPROTECT, unix.PROT_EXEC)
	case "memfd_noexec":
		return os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0)
	case "file size":
		return limit(unix.RLIMIT_FSIZE, 4096)
	case "files":
		return limit(unix.RLIMIT_NOFILE, 0)
	case "address space":
		pages, _ := strconv.ParseUint(strings.Fields(string(statm))[0], 10, 64)
		// Of a power of two nearly all would be taken for a moment, and nothing
		// be left for the runtime.
		return limit(unix.RLIMIT_AS, pages*4096+3<<29)
	}
	return nil
}

// TestFewFiles: a process that has run out of file descriptors loads and runs nothing
// new, says so, and does again when there are some. Nothing is interpreted meanwhile,
// which would go on for as long as the program lives.
func TestFewFiles(t *testing.T) {
	needJIT(t)
	p := program(t, bpfjit.EngineAuto, "r0 = 40\nexit")
	time.Sleep(time.Microsecond) // the runtime's poller takes descriptors
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, run := p.Run(nil)
	_, instance := p.NewInstance()
	loaded, load := bpfjit.Load(hashSpec(), "p", nil)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Run": run, "NewInstance": instance, "Load": load} {
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if loaded != nil {
		loaded.Close()
	}
	if r0, err := p.Run(nil); r0 != 40 || err != nil {
		t.Errorf("later: %d, %v", r0, err)
	}
}

// TestNeverWritableAndExecutable looks at the mappings of the process while
// programs are loaded, run and closed, with one view of their memory and with
// two, and perf(1) told of them.
func TestNeverWritableAndExecutable(t *testing.T) {
	needJIT(t)
	perfPaths(t)
	var done atomic.Bool
	var looks, executable int
	var watch sync.WaitGroup
	ready := make(chan bool)
	watch.Go(func() {
		for last := false; !last; { // the last look begins after the last load
			last = done.Load()
			maps, err := os.ReadFile("/proc/self/maps")
			if err != nil {
				t.Error(err)
			}
			for line := range strings.Lines(string(maps)) {
				protection := strings.Fields(line)[1]
				if protection[1] == 'w' && protection[2] == 'x' {
					t.Errorf("writable and executable: %s", line)
				}
				if protection[2] == 'x' && strings.Contains(line, "bpfjit") && strings.Contains(line, "memfd") {
					executable++
				}
			}
			if looks++; looks == 1 {
				close(ready)
			}
		}
	})
	<-ready
	for n := range 60 {
		p := program(t, bpfjit.EngineJIT, "r0 = 1\n"+strings.Repeat("r0 += r0\n", 100*n)+"exit", func(o *bpfjit.Options) {
			o.Perf = []bpfjit.PerfFiles{0, bpfjit.PerfMap, bpfjit.PerfDump}[n%3]
		})
		if _, err := p.Run(nil); err != nil {
			t.Error(err)
		}
		if n%4 == 0 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	done.Store(true)
	watch.Wait()
	if executable == 0 {
		t.Error("saw no code")
	}
}
