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

// Run must not be called: Check fails.
func Run(*cage.Instance, *image.Image, *Input, *Result) error {
	panic("BUG: machine: Run where nothing can run")
}
