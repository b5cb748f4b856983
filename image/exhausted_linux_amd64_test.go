package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/internal/seccomp"
)

// TestMprotectFails runs a child in which memory can't be made executable any more.
// Images that need more of it are an error and leave nothing behind; what is open
// already goes on to be used.
func TestMprotectFails(t *testing.T) {
	const child = "BPFJIT_TEST_MPROTECT"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMprotectFails$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if _, why, ok := strings.Cut(string(out), "\nskip: "); ok {
			t.Skip(why)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	type region struct {
		*Region
		first  *Image
		before Stats
	}
	var all []region
	for _, x := range regions {
		r := newRegion(t, x.config)
		im := publish(t, r, pattern(10, 0), nil)
		all = append(all, region{r, im, r.Stats()})
	}
	if err := seccomp.Deny(unix.SYS_MPROTECT, unix.PROT_EXEC); err != nil {
		fmt.Printf("\nskip: %v\n", err)
		return
	}
	for k, r := range all {
		name := regions[k].name
		for range 2 {
			_, err := r.Publish(pattern(openStep, 0), nil, nil)
			var se *os.SyscallError
			if !errors.As(err, &se) || se.Syscall != "mprotect" || !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s := r.Stats(); s.Images != r.before.Images || s.Used != r.before.Used {
			t.Errorf("%s: %+v, before %+v", name, s, r.before)
		}
		if r.strategy == Packs {
			publish(t, r.Region, pattern(20, 1), nil).Free()
		}
		if b := r.first.Bytes(); string(b) != string(pattern(10, 0)) {
			t.Errorf("%s: the first image is % x", name, b)
		}
		r.first.Free()
		if s := r.Stats(); s.Images != 0 || s.Used != 0 {
			t.Errorf("%s: in the end %+v", name, s)
		}
	}
}

// TestFewFiles: a region that is made when the process has no file descriptors left
// has a single view, and says why.
func TestFewFiles(t *testing.T) {
	time.Sleep(time.Microsecond) // the runtime's poller takes descriptors
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Size: 4 << 20})
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s := r.Stats(); !errors.Is(s.SingleView, unix.EMFILE) || s.Strategy != Pages {
		t.Errorf("%+v", s)
	}
	publish(t, r, pattern(10, 0), nil).Free()
}
