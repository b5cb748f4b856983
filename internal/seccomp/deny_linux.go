package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Deny has a system call fail with EPERM, on all threads and for good: Always,
// or where its third argument has bits of mask, which is above 0. The error is
// that of prctl(2) or seccomp(2).
func Deny(number uintptr, mask int32) error {
	const (
		load, equal, isSet, ret = 0x20, 0x15, 0x45, 0x06 // of classic BPF
		deny, allow             = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ALLOW
		numberAt, thirdAt       = 0, 16 + 2*8 // in struct seccomp_data
	)
	filter := []unix.SockFilter{
		{Code: load, K: numberAt},
		{Code: equal, K: uint32(number), Jf: 3},
		{Code: load, K: thirdAt},
		{Code: isSet, K: uint32(mask), Jf: 1},
		{Code: ret, K: deny},
		{Code: ret, K: allow},
	}
	if mask == Always {
		filter[3] = unix.SockFilter{Code: equal} // both ways lead on
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return e
	}
	return nil
}
