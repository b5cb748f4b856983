package bpfjit_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
)

// many returns an object of n programs: copies of those with globals and maps.
func many(t testing.TB, n int) *ebpf.CollectionSpec {
	s := spec(t, globals)
	originals := s.Copy().Programs
	for k := 0; len(s.Programs) < n; k++ {
		for name, p := range originals {
			p = p.Copy()
			p.Name = fmt.Sprintf("%s_%03d", name, k)
			s.Programs[p.Name] = p
		}
	}
	return s
}

// TestLoadMany: the programs of a large object are compiled at once, and share
// their maps all the same.
func TestLoadMany(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		s := many(t, 100)
		c, err := bpfjit.LoadCollection(s, &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if len(c.Programs) != len(s.Programs) {
			t.Errorf("%d programs, want %d", len(c.Programs), len(s.Programs))
		}
		runs := 0
		for name, p := range c.Programs {
			if p.Name() != name {
				t.Errorf("%s is called %s", name, p.Name())
			}
			if strings.HasPrefix(name, "add") {
				if _, _, err := p.RunPacket([]byte{1}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				runs++
			}
		}
		if got, want := values(c.Maps[".bss"])["runs"], fmt.Sprint(runs); got != want {
			t.Errorf("%s runs counted, want %s", got, want)
		}
	})
}

// TestLoadManyErrors: the error is that of the first program that can't be
// compiled, whoever comes to it first.
func TestLoadManyErrors(t *testing.T) {
	s := many(t, 100)
	for _, name := range []string{"add_007", "add_013", "store_001", "store_002"} {
		s.Programs[name].Instructions = asm.Instructions{asm.FnLoop.Call(), asm.Return()}
	}
	for range 50 {
		c, err := bpfjit.LoadCollection(s, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "add_007: instruction 0 ") {
			t.Fatalf("%v, %v", c, err)
		}
	}
}

// TestLoadManyInOrder: a caller's random numbers are read, and his dump is
// written, by one program after the other.
func TestLoadManyInOrder(t *testing.T) {
	load := func() string {
		var dump bytes.Buffer
		opts := &bpfjit.Options{Blinding: true, Rand: rand.NewChaCha8([32]byte{1}), Dump: &dump}
		c, err := bpfjit.LoadCollection(many(t, 40), opts)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Addresses differ.
		var lines []string
		for line := range strings.Lines(dump.String()) {
			if before, _, ok := strings.Cut(line, "image="); ok {
				line = before
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	if d := cmp.Diff(load(), load()); d != "" {
		t.Errorf("loaded twice with the same numbers:\n%s", d)
	}
}
