//go:build !linux

package seccomp

import "errors"

// Deny fails: there is no seccomp here.
func Deny(number uintptr, mask int32) error { return errors.ErrUnsupported }
