//go:build !(linux && amd64)

package cage

import "unsafe"

// Supported returns nil if this build can make windows, and otherwise an error
// that wraps ErrNoWindow. The system may refuse them all the same.
func Supported() error { return ErrNoWindow }

func newFileShared() (*shared, error) { return nil, ErrNoWindow }

func (i *Instance) openWindow(*shared) error { return ErrNoWindow }

// The rest is for windows, which nobody has.

func (m *shared) growFile(uint64) error                 { panic("BUG: cage: no windows here") }
func (m *shared) releaseFile() error                    { panic("BUG: cage: no windows here") }
func (m *shared) writtenFile(_, _ uint64) (_, _ uint64) { panic("BUG: cage: no windows here") }
func (i *Instance) closeWindow() error                  { panic("BUG: cage: no windows here") }
func (i *Instance) protectMem(old, new uint64) error    { panic("BUG: cage: no windows here") }
func discard(unsafe.Pointer, uint64)                    { panic("BUG: cage: no windows here") }
