//go:build !(linux && amd64)

package image

import (
	"errors"
	"fmt"
	"runtime"
)

type memory struct{ why error }

func reserve(int, bool) (memory, error) {
	return memory{}, fmt.Errorf("image: executable memory on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}

// No Region exists here, so none of these is ever called.
func (m *memory) unmap()                          {}
func (m *memory) writable(off, n int) []byte      { return nil }
func (m *memory) readable(off, n int) []byte      { return nil }
func (m *memory) addr(off int) uintptr            { return 0 }
func (m *memory) open(off, n int) ([]byte, error) { return nil, errors.ErrUnsupported }
func (m *memory) seal(off, n int) error           { return errors.ErrUnsupported }
func (m *memory) close(off, n int) error          { return errors.ErrUnsupported }
func (m *memory) twoViews() bool                  { return false }
func registerSync() error                         { return errors.ErrUnsupported }
func syncCores() error                            { return errors.ErrUnsupported }
