package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeny denies calls in a child, and looks at what is left of them.
func TestDeny(t *testing.T) {
	const child = "BPFJIT_TEST_SECCOMP"
	if os.Getenv(child) != "" {
		if err := Deny(unix.SYS_MEMFD_CREATE, Always); err != nil {
			fmt.Println("skip:", err)
			return
		}
		if err := Deny(unix.SYS_MPROTECT, unix.PROT_EXEC); err != nil {
			t.Fatal(err)
		}
		_, err := unix.MemfdCreate("x", 0)
		page, mapErr := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
		fmt.Printf("found: %v %v %v %v\n", err, mapErr,
			unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC), unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeny$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.ENOEXEC) {
		t.Skip("an emulator runs this test, and the child would need one")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.HasPrefix(out, []byte("skip: ")) {
		t.Skipf("%s", out)
	}
	const want = "found: operation not permitted <nil> operation not permitted <nil>\n"
	if !bytes.HasPrefix(out, []byte(want)) {
		t.Errorf("got  %swant %s", out, want)
	}
}
