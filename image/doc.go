// Package image owns executable memory. It takes finished machine code and
// its exception table, places them at a random start between traps, and makes
// them executable without any address ever being writable and executable at
// one time. It knows nothing of BPF.
//
// # One region
//
// A [Region] reserves its address space once and opens pieces of it as they
// are needed; whether a program counter belongs to it is one subtraction and
// one comparison. The memory behind it is a memfd mapped twice, executable at
// one place and writable at another. Where the system refuses that, the
// region is private memory that is writable first and executable afterwards,
// and every image has pages of its own.
//
//	executable view                       writable view
//	+---------------------------+         +---------------------------+
//	| pack: r-x, CC where empty | <------ | rw-                       |
//	| ...opened so far          |  same   |                           |
//	+---------------------------+  memory +---------------------------+
//	| not opened: ---           |         | ---                       |
//	+---------------------------+         +---------------------------+
//
// # An image
//
// The layout is the kernel's: a header of eight bytes that begins with the
// size of the allocation, a random gap, the code, and the exception table at
// the next multiple of four. What is none of these is INT3.
//
//	+--------+-----------+----------------+-----+----------------+------+
//	| header | CC ...    | code           | CC  | table          | CC   |
//	+--------+-----------+----------------+-----+----------------+------+
//	0        8           8+Start          ^ 4-aligned            ^ Size
//
// # Life
//
// Code that was never executed needs no more than ordinary stores before its
// address is handed on. Code that was executed may still be in another
// processor's pipeline, so the memory of freed images stays filled with INT3
// in quarantine until a membarrier(2) has serialised every thread. The
// caller sees to it that nothing runs an image that it frees.
package image
