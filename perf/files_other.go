//go:build !linux

package perf

import (
	"errors"
	"fmt"
	"runtime"
)

func newSink(string, Files) (sink, error) {
	return nil, fmt.Errorf("there is no perf on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
