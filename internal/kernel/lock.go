package kernel

import "os"

// LockFile is the file that everybody locks who loads programs: shared, or
// exclusively while bpf_jit_harden is changed. It is one for the machine, and
// so not in os.TempDir, of which a process can have its own.
const LockFile = "/tmp/bpfjit-harden.lock"

// EnvRequire makes Require and WithHarden2 fail where they would skip, if it
// is set to 1.
const EnvRequire = "BPFJIT_REQUIRE_KERNEL"

// TB is what this package uses of testing.TB.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// unavailable skips a test, or fails it where the kernel is required.
func unavailable(t TB, err error) {
	t.Helper()
	if os.Getenv(EnvRequire) == "1" {
		t.Fatalf("%s=1, but: %v", EnvRequire, err)
	}
	t.Skipf("needs a live kernel: %v", err)
}

// Require skips the test if the kernel can't be asked, or blinds everything
// already (with BPFJIT_REQUIRE_KERNEL=1 it fails), and holds the lock, shared,
// until the test ends.
func Require(t TB) {
	t.Helper()
	if err := Available(); err != nil {
		unavailable(t, err)
	}
	requireLock(t)
}
