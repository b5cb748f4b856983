package encoder

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns n zero elements whose last byte is the last one of a page,
// or, unless atEnd, whose first byte is the first one. Unmapped pages are on
// both sides: whatever is read or written outside faults.
func guarded[T any](t testing.TB, n int, atEnd bool) []T {
	size := n * int(unsafe.Sizeof(*new(T)))
	page := unix.Getpagesize()
	mapped := (size + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, mapped+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if n == 0 {
		// A pointer to where nothing may be read.
		return unsafe.Slice((*T)(unsafe.Pointer(&mem[page])), 0)
	}
	inside := mem[page : page+mapped]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	if atEnd {
		inside = inside[mapped-size:]
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&inside[0])), n)
}
