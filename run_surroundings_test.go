//go:build linux && amd64 && !purego

package bpfjit_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit"
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
		fmt.Printf("\nfound: %d %v; engine %v because of %v; fallback because of %v.\n", r0, err, info.Engine, info.Reason, info.Fallback)
		return
	}
	if err := machine.Available(); err != nil {
		t.Skip(err)
	}
	for name, want := range map[string]string{
		"nothing":       "42 <nil>; engine jit because of <nil>; fallback because of <nil>.",
		"memfd_noexec":  "42 <nil>; engine jit because of <nil>; fallback because of memfd_create: permission denied.",
		"file size":     "42 <nil>; engine jit because of <nil>; fallback because of RLIMIT_FSIZE is 4096.",
		"files":         "42 <nil>; engine interp because of no memory windows: unsupported operation: memfd_create: too many open files; fallback because of <nil>.",
		"address space": "42 <nil>; engine interp because of no memory windows: unsupported operation: mapping shared memory: cannot allocate memory; fallback because of <nil>.",
	} {
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
	switch name {
	case "memfd_noexec":
		return os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0)
	case "file size":
		return limit(unix.RLIMIT_FSIZE, 4096)
	case "files":
		return limit(unix.RLIMIT_NOFILE, 0)
	case "address space":
		b, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			return err
		}
		pages, _ := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
		return limit(unix.RLIMIT_AS, pages*4096+1<<30)
	}
	return nil
}
