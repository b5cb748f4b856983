package blind

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/google/go-cmp/cmp"
)

// TestBounds rewrites programs that nothing stands in front of or behind: whatever is
// read there faults.
func TestBounds(t *testing.T) {
	seed := testprog.Seed(t)
	slots := unreadableAround[bpf.Insn](t)
	flags := unreadableAround[bpf.Flag](t)
	var kept Result
	for n := range uint64(600) {
		r := testprog.Rand(seed, n)
		source := randomProgram(r, bpf.Source, 1+int(n/2))
		size := len(source.Insns)
		if size > len(slots) {
			continue
		}
		p := &bpf.Program{Insns: slots[:size:size]}
		if n%2 == 0 {
			p.Insns = slots[len(slots)-size:]
		}
		copy(p.Insns, source.Insns)
		if n%3 == 0 {
			p.Flags = flags[len(flags)-size:]
			for i := range p.Flags {
				p.Flags[i] = bpf.Probe * bpf.Flag(r.IntN(2))
			}
		}
		a, b := rand.New(rand.NewPCG(seed, ^n)), rand.New(rand.NewPCG(seed, ^n))
		if err := kept.Rewrite(p, &words{next: a.Uint32}); err != nil {
			t.Fatalf("program %d: %v", n, err)
		}
		if want, _ := reference(p, b.Uint32); !same(want, &kept.Program) {
			t.Fatalf("program %d (-reference +got):\n%s", n, cmp.Diff(want, &kept.Program))
		}
	}
}

// unreadableAround returns elements in pages whose neighbours can't be read.
func unreadableAround[T any](t *testing.T) []T {
	page := unix.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 6*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	inside := mem[page : 5*page]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&inside[0])), len(inside)/int(unsafe.Sizeof(*new(T))))
}
