// Package cgocall has the call of an empty C function, a yardstick. Without
// cgo it says that there is none.
package cgocall
