// Package reemit is a yardstick: the plain way to compile with jumps of two
// lengths. Every pass translates every instruction again, with the addresses
// that the pass before came to, until the length no longer changes; the pass
// after that is the code. The bytes are those of package jit with the kernel's
// profile and plain returns.
package reemit
