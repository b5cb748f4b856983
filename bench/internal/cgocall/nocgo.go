//go:build !cgo

package cgocall

// Available reports whether Call calls C.
const Available = false

// Call panics: it must not be called where Available is false.
func Call() { panic("BUG: cgocall.Call without cgo") }
