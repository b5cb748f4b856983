//go:build !(linux && amd64)

package kernel

import (
	"fmt"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("%w: %s/%s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}

// Available returns nil if the kernel can be asked, else an error that wraps
// ErrUnavailable and says what is missing.
func Available() error { return unsupported() }

func requireLock(t TB) { t.Fatalf("BUG: no kernel here") }

// WithHarden2 skips the test: this is not linux/amd64.
func WithHarden2(t TB, f func()) { unavailable(t, unsupported()) }

// ReadConstants fails: this is not linux/amd64.
func ReadConstants() (*Constants, error) { return nil, unsupported() }

// Program is a program that the kernel has loaded.
type Program struct{}

// Load fails: this is not linux/amd64.
func Load(*Spec) (*Program, error) { return nil, unsupported() }

// FD returns -1.
func (*Program) FD() int { return -1 }

// Close does nothing.
func (*Program) Close() error { return nil }

// Info fails: this is not linux/amd64.
func (*Program) Info() (*Info, error) { return nil, unsupported() }

// Functions fails: this is not linux/amd64.
func (*Program) Functions() ([]Function, error) { return nil, unsupported() }

// Run fails: this is not linux/amd64.
func (*Program) Run(RunOptions) (*Result, error) { return nil, unsupported() }

// Map is a map of the kernel.
type Map struct{}

// NewMap fails: this is not linux/amd64.
func NewMap(MapSpec) (*Map, error) { return nil, unsupported() }

// FD returns -1.
func (*Map) FD() int { return -1 }

// Close does nothing.
func (*Map) Close() error { return nil }

// ID fails: this is not linux/amd64.
func (*Map) ID() (uint32, error) { return 0, unsupported() }

// Lookup fails: this is not linux/amd64.
func (*Map) Lookup([]byte) ([]byte, error) { return nil, unsupported() }

// Update fails: this is not linux/amd64.
func (*Map) Update(key, value []byte) error { return unsupported() }

// Delete fails: this is not linux/amd64.
func (*Map) Delete([]byte) error { return unsupported() }

// SetProgram fails: this is not linux/amd64.
func (*Map) SetProgram(uint32, *Program) error { return unsupported() }
