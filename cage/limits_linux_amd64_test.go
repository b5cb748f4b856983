package cage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

// TestLittleAddressSpace runs a child without room for windows. What doesn't
// need them works, and the error says that a window is what is missing.
func TestLittleAddressSpace(t *testing.T) {
	const child = "BPFJIT_TEST_RLIMIT_AS"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLittleAddressSpace$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const room = 4 << 30 // what Go has reserved, and a Space
	statm, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	var pages int
	if _, err := fmt.Sscan(string(statm), &pages); err != nil || pages > room/abi.PageSize/2 {
		t.Skipf("%d pages are taken already (the race detector takes that many): %v", pages, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: room, Max: room}); err != nil {
		t.Fatal(err)
	}
	s := new(Space)
	if _, err := s.NewInstance(Window); !errors.Is(err, ErrNoWindow) {
		t.Fatalf("%v, want ErrNoWindow", err)
	}
	addr, err := s.Alloc(1 << 20)
	check(t, err)
	i, err := s.Get(Plain, []byte("x"))
	check(t, err)
	if !i.Store(int64(addr), 8, 7) || !i.Store(abi.MemBase, 1, 7) {
		t.Error("no memory")
	}
	s.Put(i, WritesAll)
	check(t, s.Close())

	// And with hardly any: an error, no crash.
	const none = 1 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: none, Max: room}); err != nil {
		t.Fatal(err)
	}
	if _, err := new(Space).Alloc(1); err == nil {
		t.Error("memory from nowhere")
	}
	if _, err := new(Space).NewInstance(Window); !errors.Is(err, ErrNoWindow) {
		t.Errorf("%v, want ErrNoWindow", err)
	}
}
