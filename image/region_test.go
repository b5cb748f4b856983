package image

import (
	"errors"
	"runtime"
	"testing"
)

// TestPlatform: there are regions on Linux on x86-64, and elsewhere an error
// that says so.
func TestPlatform(t *testing.T) {
	r, err := New(Config{})
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, errors.ErrUnsupported) || r != nil {
		t.Errorf("got %v, %v", r, err)
	}
}
