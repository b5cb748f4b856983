// Package cage holds guest memory: everything that a BPF program can address,
// laid out after the plan in package abi, and nothing else.
//
// A [Space] is the memory that programs share: maps and global variables, from
// abi.SharedBase upward. An [Instance] is what one run at a time has for
// itself: stack, context structure, and the caller's memory. There are two
// kinds of instance. A [Plain] one keeps each region in a piece of host memory
// of its own; every access goes through a check in Go, and it exists on every
// platform. A [Window] maps the whole plan at a 4 GiB-aligned host address
// between guards, so that machine code reaches guest address a at base+a
// without a check and cannot reach anything else:
//
//	                 one slot of a slab, 8 GiB after the last
//	+--------------------------------------------------------+ base-0x30000
//	| native stack, Context                  read and write  | mapping 1
//	+--------------------------------------------------------+ base-0x1f000
//	| guard, null region                         no access   | mapping 2
//	+--------------------------------------------------------+ base+StackBase
//	| BPF stack | gap | ctx | gap | mem      read and write  | mapping 3
//	+--------------------------------------------------------+
//	| rest of mem, handles                       no access   | mapping 4
//	+--------------------------------------------------------+ base+SharedBase
//	| the Space's memory, a file        read and write up to | mapping 5
//	| end of file                               its end only |
//	+ - - - - - - - - - - - - - - - - - - - - - - - - - - - -+ base+WindowSize
//	| guard: the same mapping, always behind the file's end  |
//	+--------------------------------------------------------+ next base-0x30000
//
// The gaps of mapping 3 are guard markers in the page table, or mappings of
// their own on kernels before Linux 6.13. A page behind the end of the file
// raises SIGBUS, so the shared memory of all windows grows by one ftruncate,
// and the guard above needs no mapping of its own.
//
// Which guest addresses a run can access, and what it finds there, is a
// function of that run alone: the size of its memory, the size of its Space.
// What an instance was used for before never shows.
//
// Guest memory is little-endian, and so is every machine that this package
// supports.
package cage
