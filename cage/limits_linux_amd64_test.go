package cage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/internal/testprog"
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
	if taken := addressSpace(t); taken > room/2 {
		t.Skipf("%d bytes are taken already (the race detector takes that many)", taken)
	}
	limit := func(cur uint64) {
		check(t, syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: cur, Max: room}))
	}
	limit(room)
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

	// And with hardly any: an error, no crash. What is left is too little for
	// a Space, and enough for what Go's runtime may map meanwhile.
	limit(addressSpace(t) + plainLeast*2/3)
	defer limit(room)
	if _, err := new(Space).Alloc(1); err == nil {
		t.Error("memory from nowhere")
	}
	if _, err := new(Space).NewInstance(Window); !errors.Is(err, ErrNoWindow) {
		t.Errorf("%v, want ErrNoWindow", err)
	}
}

// TestFewFiles: where windows could be made, want of file descriptors is an error that
// says so, and no reason to go on without windows for good.
func TestFewFiles(t *testing.T) {
	if err := new(Space).Windows(); err != nil {
		t.Skip(err)
	}
	time.Sleep(time.Microsecond) // the runtime's poller takes descriptors
	var old syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: old.Max}))
	s := new(Space)
	_, alloc := s.Alloc(1)
	_, window := s.NewInstance(Window)
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
	for what, err := range map[string]error{"Alloc": alloc, "NewInstance": window} {
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := s.Alloc(1)
	check(t, err)
	i, err := s.NewInstance(Window)
	check(t, err)
	check(t, i.Close())
	check(t, s.Close())
}

// TestReserveAllocates nothing: all address space may be taken between the two.
func TestReserveAllocates(t *testing.T) {
	var m shared
	if n := testprog.Allocations(100, func() {
		if err := errors.Join(m.reserve(plainLeast), m.unreserve()); err != nil {
			panic(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if m.unreserve() == nil {
		t.Error("nothing was given back")
	}
}

// addressSpace returns how many bytes of address space are taken.
func addressSpace(t *testing.T) uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	var pages uint64
	_, err = fmt.Sscan(string(statm), &pages)
	check(t, err)
	return pages * abi.PageSize
}

// TestMostWindows: there is an end to windows before there is one to the process's
// mappings, which Go's runtime doesn't survive.
func TestMostWindows(t *testing.T) {
	if n := most(); n < 1 || n*mappings > 1<<31 {
		t.Errorf("%d windows", n)
	}
	l := slotList{used: most()}
	if _, err := l.take(); err == nil {
		t.Error("one more window")
	}
	l.used--
	base, err := l.take()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.take(); err == nil {
		t.Error("one more window")
	}
	if err := l.give(base); err != nil || l.used != most()-1 {
		t.Errorf("%v, %d in use", err, l.used)
	}
}
