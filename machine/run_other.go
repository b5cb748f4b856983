//go:build !(linux && amd64 && !purego)

package machine

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
)

// Available returns why generated code can't run in this process.
func Available() error {
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		return fmt.Errorf("machine: built without assembly (purego): %w", errors.ErrUnsupported)
	}
	return fmt.Errorf("machine: generated code on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}

// Check returns what Available returns.
func Check() error { return Available() }

// Recheck returns what Available returns.
func Recheck() error { return Available() }

// A Frame can't be used, but for its Turn: Check fails.
type Frame struct{ Turn }

// Bind must not be called: Check fails.
func (*Frame) Bind(*cage.Instance, *image.Image, *Input) {
	panic("BUG: machine: Bind where nothing can run")
}

// SetKey does nothing.
func (*Frame) SetKey(uintptr, bool) {}

// Dash is Try.
func (f *Frame) Dash(uintptr) (uint64, Way) {
	if f.Try() {
		return 0, Taken
	}
	return 0, Refused
}

// Enter must not be called: Check fails.
func (*Frame) Enter(r1, r2 uint64) bool { panic("BUG: machine: Enter where nothing can run") }

// R0 returns 0.
func (*Frame) R0() uint64 { return 0 }

// Used returns 0.
func (*Frame) Used() int64 { return 0 }

// Unused does nothing.
func (*Frame) Unused() {}

// Finish must not be called: Check fails.
func (*Frame) Finish(*Result) { panic("BUG: machine: Finish where nothing can run") }
