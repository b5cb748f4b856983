// Package seccomp takes system calls from the process, as a container may, so
// that tests find out what happens then.
package seccomp

// Always is the mask of Deny for a call that fails whatever its arguments are.
const Always = -1
