package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const hardenPath = "/proc/sys/net/core/bpf_jit_harden"

// lockPatience is how long to wait for others who hold the lock.
const lockPatience = 10 * time.Minute

// held is what this process knows of its own locks.
var held struct {
	sync.Mutex
	shared    map[string]bool // names of tests
	exclusive bool
}

// acquire locks the file. The lock belongs to the open file, so that a child
// that inherits it keeps it.
func acquire(how int) (*os.File, error) {
	f, err := os.OpenFile(LockFile, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("kernel: lock: %w", err)
	}
	deadline := time.Now().Add(lockPatience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("kernel: lock %s: %w", LockFile, err)
		}
		time.Sleep(wait)
	}
}

// loadLock takes the lock, shared, for one load. Within WithHarden2 the
// process has it already.
func loadLock() (unlock func(), err error) {
	held.Lock()
	exclusive := held.exclusive
	held.Unlock()
	if exclusive {
		return func() {}, nil
	}
	f, err := acquire(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func requireLock(t TB) {
	t.Helper()
	f, err := acquire(unix.LOCK_SH)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if now, err := readSysctl(hardenPath); err == nil && now == "2" {
		f.Close()
		unavailable(t, errors.New("net.core.bpf_jit_harden is 2: every program would be blinded"))
	}
	held.Lock()
	if held.shared == nil {
		held.shared = make(map[string]bool)
	}
	held.shared[t.Name()] = true
	held.Unlock()
	t.Cleanup(func() {
		held.Lock()
		delete(held.shared, t.Name())
		held.Unlock()
		f.Close()
	})
}

// WithHarden2 runs f while net.core.bpf_jit_harden is 2, so that every
// program is blinded, and holds the lock exclusively meanwhile. The old value
// comes back on every path, a panic and the death of this process included: a
// child that waits for the end of a pipe writes it. WithHarden2 takes the
// place of Require; a test that called Require, or whose parent did, would
// wait for itself.
func WithHarden2(t TB, f func()) {
	t.Helper()
	held.Lock()
	for name := range held.shared {
		if t.Name() == name || strings.HasPrefix(t.Name(), name+"/") {
			held.Unlock()
			t.Fatalf("BUG: %s holds the lock shared and wants it exclusively", name)
		}
	}
	held.Unlock()
	if err := Available(); err != nil {
		unavailable(t, err)
	}
	lock, err := acquire(unix.LOCK_EX)
	if err != nil {
		t.Fatalf("%v", err)
	}
	restore, err := setHarden(lock, "2")
	if err != nil {
		lock.Close()
		unavailable(t, err)
	}
	setExclusive(true)
	defer func() {
		setExclusive(false)
		err := restore()
		lock.Close()
		if err != nil {
			t.Fatalf("%v", err)
		}
	}()
	f()
}

func setExclusive(on bool) {
	held.Lock()
	held.exclusive = on
	held.Unlock()
}

// restorer waits until its input ends and writes the old value. It has a
// session of its own and ignores what a terminal sends, since an interrupt is
// just the case that it is for. It holds the lock, inherited, until it is done.
const restorer = `trap '' HUP INT QUIT TERM PIPE; read -r line; echo "$1" > "$2"`

// setHarden sets the sysctl and returns the function that brings the old
// value back.
func setHarden(lock *os.File, value string) (restore func() error, err error) {
	old, err := readSysctl(hardenPath)
	if err != nil {
		return nil, err
	}
	child := exec.Command("/bin/sh", "-c", restorer, "sh", old, hardenPath)
	child.ExtraFiles = []*os.File{lock}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := child.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(); err != nil {
		return nil, err
	}
	restore = func() error {
		pipe.Close()
		if err := child.Wait(); err != nil {
			return fmt.Errorf("kernel: restoring %s to %s: %w", hardenPath, old, err)
		}
		if now, err := readSysctl(hardenPath); err != nil || now != old {
			return fmt.Errorf("kernel: %s is %q, was %q (%v)", hardenPath, now, old, err)
		}
		return nil
	}
	if err := os.WriteFile(hardenPath, []byte(value), 0); err != nil {
		restore()
		return nil, err
	}
	if now, err := readSysctl(hardenPath); err != nil || now != value {
		restore()
		return nil, fmt.Errorf("kernel: %s is %q after writing %q (%v)", hardenPath, now, value, err)
	}
	return restore, nil
}

var available = sync.OnceValue(func() error {
	// A program that is loaded while somebody tries bpf_jit_harden is none
	// the worse for it, so no lock is needed here.
	return checkAvailable()
})
