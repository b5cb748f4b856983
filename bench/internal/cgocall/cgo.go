//go:build cgo

package cgocall

// static void empty(void) {}
import "C"

// Available reports whether Call calls C.
const Available = true

// Call calls an empty C function.
func Call() { C.empty() }
