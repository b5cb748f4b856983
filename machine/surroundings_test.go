//go:build linux && amd64 && !purego

package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/seccomp"
)

// surroundings is what a process finds: how far it comes with generated code,
// and what the system says where it doesn't get further.
type surroundings struct {
	Ran    bool // code ran, was freed, and other code ran
	Packs  bool // the first strategy
	Single string
	Kept   string
	Region string
	Image  string
	Window string
	Plain  string
}

// look is the child's part.
func look() (s surroundings) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	space := &cage.Space{}
	if plain, err := space.NewInstance(cage.Plain); err != nil {
		s.Plain = text(err)
	} else if s.Plain = text(plain.LoadMem(make([]byte, 10000))); s.Plain == "" {
		if _, err := plain.Bytes(abi.MemBase, 10000); err != nil {
			s.Plain = text(err)
		}
	}
	window, err := space.NewInstance(cage.Window)
	if err != nil {
		s.Window = text(err)
	}
	if e := (&cage.Space{}).Windows(); (e != nil) != (err != nil) || e != nil && !errors.Is(e, cage.ErrNoWindow) {
		s.Window = fmt.Sprintf("instance: %v, beforehand: %v", err, e)
	}
	region, err := image.Default()
	if s.Region = text(err); err != nil {
		return s
	}
	s.Packs = region.Stats().Strategy == image.Packs
	s.Single, s.Kept = text(region.Stats().SingleView), text(region.Stats().Kept)
	for n := byte(1); n < 200; n++ {
		im, err := region.Publish([]byte{0xb8, n, 0, 0, 0, 0xc3}, nil, nil)
		if s.Image = text(err); err != nil {
			return s
		}
		if window == nil {
			return s
		}
		var out Result
		if err := Check(); err != nil {
			return s
		}
		if once(window, im, &input{}, &out); out.R0 != uint64(n) {
			return s
		}
		im.Free()
	}
	s.Ran = true
	return s
}

const surroundingsChild = "BPFJIT_TEST_SURROUNDINGS"

// TestSurroundings: where a system forbids something, code runs in another
// way, or an error says what was forbidden, and memory for the interpreter
// can still be had.
func TestSurroundings(t *testing.T) {
	if name := os.Getenv(surroundingsChild); name != "" {
		if err := restrict(name); err != nil {
			fmt.Printf("\nskip: %v\n", err)
			return
		}
		b, err := json.Marshal(look())
		fmt.Printf("\nfound: %s%v\n", b, err)
		return
	}
	const refused = "operation not permitted"
	normal := surroundings{Ran: true, Packs: true}
	for _, tt := range []struct {
		name string
		want surroundings // texts are parts of what is to be found
	}{
		{"nothing", normal},
		{"memfd_noexec", surroundings{Ran: true, Single: "memfd_create: permission denied"}},
		{"no memfd", surroundings{Single: "memfd_create: " + refused, Window: "memfd_create: " + refused}},
		{"no membarrier", surroundings{Ran: true, Packs: true, Kept: "membarrier: " + refused}},
		{"no mprotect for code", surroundings{Single: "mprotect: " + refused, Image: "mprotect: " + refused}},
		{"address space", surroundings{Packs: true, Window: "cannot allocate memory"}},
		{"little address space", surroundings{Region: "cannot allocate memory", Window: "cannot allocate memory"}},
		{"file size", surroundings{Ran: true, Single: "RLIMIT_FSIZE is 4096"}},
		{"files", surroundings{Single: "too many open files", Window: "too many open files"}},
		{"locked memory", normal},
		{"overcommit", normal},
		{"cgroup", normal},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestSurroundings$")
			cmd.Env = append(os.Environ(), surroundingsChild+"="+tt.name, "GOMAXPROCS=2")
			cmd.SysProcAttr = &unix.SysProcAttr{}
			around, err := surround(tt.name, cmd)
			if err != nil {
				t.Skip(err)
			}
			out, err := cmd.CombinedOutput()
			around()
			if _, why, ok := strings.Cut(string(out), "\nskip: "); ok {
				t.Skip(why)
			}
			_, found, ok := bytes.Cut(out, []byte("\nfound: "))
			if err != nil || !ok {
				t.Fatalf("%v\n%s", err, out)
			}
			var got surroundings
			if err := json.NewDecoder(bytes.NewReader(found)).Decode(&got); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%+v", got)
			part := cmp.Comparer(func(x, y string) bool {
				// The one that is wanted is the shorter one.
				return x == y || x != "" && y != "" && (strings.Contains(x, y) || strings.Contains(y, x))
			})
			if d := cmp.Diff(tt.want, got, part); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// surround does what the parent has to do: the returned function undoes it.
func surround(name string, cmd *exec.Cmd) (undo func(), err error) {
	undo = func() {}
	switch name {
	case "memfd_noexec":
		// A namespace of processes has a setting of its own.
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	case "overcommit":
		// It is the whole machine's.
		if os.Getenv("BPFJIT_SYSCTL") != "1" {
			return undo, errors.New("changes the machine; BPFJIT_SYSCTL=1 allows it")
		}
		const file = "/proc/sys/vm/overcommit_memory"
		old, err := os.ReadFile(file)
		if err != nil {
			return undo, err
		}
		undo = func() { os.WriteFile(file, old, 0) }
		return undo, os.WriteFile(file, []byte("2"), 0)
	case "cgroup":
		return memoryGroup(cmd, 64<<20)
	}
	if cmd.SysProcAttr.Cloneflags != 0 && os.Geteuid() != 0 {
		return undo, errors.New("takes root")
	}
	return undo, nil
}

// memoryGroup makes the child a member of a new group with a limit.
func memoryGroup(cmd *exec.Cmd, limit int64) (undo func(), err error) {
	undo = func() {}
	for _, v := range []struct{ dir, limit string }{
		{"/sys/fs/cgroup", "memory.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		dir := filepath.Join(v.dir, fmt.Sprintf("bpfjit-test-%d", os.Getpid()))
		if _, e := os.Stat(filepath.Join(v.dir, "cgroup.procs")); e != nil {
			continue
		}
		if err = os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		undo = func() { os.Remove(dir) }
		if err = os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
			undo()
			continue
		}
		cmd.Env = append(cmd.Env, "BPFJIT_TEST_GROUP="+filepath.Join(dir, "cgroup.procs"))
		return undo, nil
	}
	if err == nil {
		err = fs.ErrNotExist
	}
	return undo, fmt.Errorf("no groups with a limit of memory: %w", err)
}

// restrict does what the child has to do.
func restrict(name string) error {
	limit := func(which int, n uint64) error {
		return unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n})
	}
	// The runtime makes its poller for the first file or timer, and doesn't survive
	// that it can't.
	taken := vmSize()
	switch name {
	case "memfd_noexec":
		return os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0)
	case "no memfd":
		return seccomp.Deny(unix.SYS_MEMFD_CREATE, seccomp.Always)
	case "no membarrier":
		return seccomp.Deny(unix.SYS_MEMBARRIER, seccomp.Always)
	case "no mprotect for code":
		return seccomp.Deny(unix.SYS_MPROTECT, unix.PROT_EXEC)
	case "address space":
		// Of a power of two nearly all would be taken for a moment, and nothing
		// be left for the runtime.
		return limit(unix.RLIMIT_AS, taken+3<<29)
	case "little address space":
		return limit(unix.RLIMIT_AS, taken+40<<20)
	case "file size":
		return limit(unix.RLIMIT_FSIZE, 4096)
	case "files":
		return limit(unix.RLIMIT_NOFILE, 0)
	case "locked memory":
		return unix.Mlockall(unix.MCL_CURRENT)
	case "cgroup":
		return os.WriteFile(os.Getenv("BPFJIT_TEST_GROUP"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	return nil
}

// vmSize returns the size of this process's address space.
func vmSize() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
	return n * abi.PageSize
}
