package bpfjit

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

// Info tells how a program was compiled. Sizes are bytes unless they say
// slots.
type Info struct {
	// Engine executes the program: never EngineAuto.
	Engine Engine
	// Reason is why it is interpreted although EngineAuto was asked for, or
	// nil.
	Reason error
	// Fallback is why executable memory has one view instead of two, which
	// takes pages and system calls for each program: what the system refuses,
	// or that PerfMap needs it. Otherwise it is nil.
	Fallback error
	// Kept is why the executable memory of programs that were closed isn't
	// used again: the system refuses membarrier(2). Otherwise it is nil.
	Kept error
	// Perf is why perf(1) doesn't know the program although Options.Perf asked
	// for it, or nil.
	Perf error
	// Insns is the number of slots of the source program.
	Insns int
	// Lowered is the number of slots that machine code was made of: with what
	// the cage needs, and with blinding, inserted. 0 if it is interpreted.
	Lowered int
	// Blinded: the author's constants are hidden, see Options.Blinding.
	Blinded bool
	// Passes are the lengths of the code after each pass of the compiler.
	Passes []int
	// Code is the size of the machine code.
	Code int
	// Image is the executable memory that it takes, gaps included.
	Image int
	// Start is the distance in bytes from the end of the image's header to the
	// code: random.
	Start int
}

// WriteRaw writes machine code in the form of the kernel's log with
// bpf_jit_enable=2, for tools that read that:
//
//	flen=4 proglen=27 pass=3 image=ffffffffc0001044 from=main pid=77
//	JIT code: 00000000: 0f 1f 44 00 00 0f 1f 00 55 48 89 e5 31 c0 c9 c3
//
// slots counts the instructions that the code was made of; passes are the
// lengths that the compiler's passes arrived at.
func WriteRaw(w io.Writer, slots int, address uint64, passes []int, code []byte) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "flen=%d proglen=%d pass=%d image=%016x from=%s pid=%d\n",
		slots, len(code), len(passes), address, comm(), os.Getpid())
	for at := 0; at < len(code); at += 16 {
		fmt.Fprintf(b, "JIT code: %08x: % x\n", at, code[at:min(at+16, len(code))])
	}
	return b.Flush()
}

// comm returns the name of the process as the kernel has it: 15 bytes at most.
func comm() string {
	name := os.Args[0]
	for i := len(name) - 1; i >= 0; i-- {
		if os.IsPathSeparator(name[i]) {
			name = name[i+1:]
			break
		}
	}
	return name[:min(len(name), 15)]
}
