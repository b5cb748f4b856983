package abi

import "strconv"

// Errno is a Linux error number as helpers report it to programs, on every
// platform: positive here, negative in R0.
type Errno int64

// The error numbers that helpers and maps use (errno(3), x86-64).
const (
	EPERM  Errno = 1
	ENOENT Errno = 2
	E2BIG  Errno = 7
	EFAULT Errno = 14
	EEXIST Errno = 17
	EINVAL Errno = 22
	ENOSPC Errno = 28
)

var errnoTexts = map[Errno]string{
	EPERM:  "EPERM: operation not permitted",
	ENOENT: "ENOENT: no such entry",
	E2BIG:  "E2BIG: too large",
	EFAULT: "EFAULT: bad address",
	EEXIST: "EEXIST: entry exists",
	EINVAL: "EINVAL: invalid argument",
	ENOSPC: "ENOSPC: no space left",
}

func (e Errno) Error() string {
	if s, ok := errnoTexts[e]; ok {
		return s
	}
	return "errno " + strconv.FormatInt(int64(e), 10)
}

// R0 returns the number as a helper returns it.
func (e Errno) R0() uint64 { return uint64(-e) }
