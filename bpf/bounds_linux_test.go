package bpf

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/abi"
)

// TestBounds checks, charges and patches programs that nothing stands in front of or
// behind, into memory of that kind: what is touched there faults.
func TestBounds(t *testing.T) {
	const most = 5000
	r := testRand(t)
	slots, moved := slotsBetween(t, most), slotsBetween(t, 4*most)
	for n := 1; n <= most; n += 1 + n/100*r.IntN(20) {
		p := &Program{Insns: someOf(r, slots, n)}
		var patches []Patch
		for i := range p.Insns {
			p.Insns[i] = Insn{Op: 0xb7}
			switch r.IntN(8) {
			case 0, 1:
				p.Insns[i] = Insn{Op: 0x15, Off: int16(r.IntN(n) - i - 1)}
			case 2:
				patches = append(patches, Patch{i, Before, make([]Insn, r.IntN(4))})
			case 3:
				patches = append(patches, Patch{i, 1, make([]Insn, 2+r.IntN(2))})
			}
		}
		p.Insns[n-1] = Insn{Op: abi.OpExit}
		var s Survey
		if err := s.Check(p, Source); err != nil {
			t.Fatal(err)
		}
		var want, got Patched
		if err := want.ApplyCharged(&s, patches); err != nil {
			t.Fatal(err)
		}
		room := max(n, len(want.Program.Insns)+r.IntN(3)-1) // or it makes its own
		got.patcher.moved, got.patcher.flags = someOf(r, moved, room), make([]Flag, room)
		if err := got.ApplyCharged(&s, patches); err != nil || !slices.Equal(got.Program.Insns, want.Program.Insns) {
			t.Fatalf("%d slots: patched otherwise, %v", n, err)
		}
	}
}

// TestBoundsHostile checks slots of any kind that nothing stands in front of or behind.
func TestBoundsHostile(t *testing.T) {
	const most = 2 * chunk * blockSlots
	r := testRand(t)
	slots := slotsBetween(t, most)
	var s Survey
	for n := 1; n <= most; n += 1 + n/200*r.IntN(1000) {
		p := &Program{Insns: someOf(r, slots, n)}
		for range 4 {
			for i := range p.Insns {
				p.Insns[i] = testInsn(r)
			}
			for d := range Dialect(2) {
				if got, want := s.Check(p, d), (&checker{p: p, dialect: d}).exact(); (got == nil) != (want == nil) {
					t.Fatalf("%d slots, %v: %v, want %v", n, d, got, want)
				}
			}
			s.Take(p)
		}
	}
}

// someOf returns n slots at one of the ends.
func someOf(r *rand.Rand, s []Insn, n int) []Insn {
	if r.IntN(2) == 0 {
		return s[:n:n]
	}
	return s[len(s)-n:]
}

// slotsBetween returns n slots or more, in pages whose neighbours can't be touched.
func slotsBetween(t *testing.T, n int) []Insn {
	page := unix.Getpagesize()
	size := (n*abi.InsnSize + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	inside := mem[page:][:size]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	slots, ok := View(inside)
	if !ok {
		t.Skip("slots can't be read where they are")
	}
	return slots
}
