package bpfjit_test

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
)

// engines runs a test with each engine that this platform has.
func engines(t *testing.T, f func(t *testing.T, e bpfjit.Engine)) {
	t.Helper()
	for _, e := range []bpfjit.Engine{bpfjit.EngineInterpreter, bpfjit.EngineJIT} {
		t.Run(e.String(), func(t *testing.T) {
			if e == bpfjit.EngineJIT {
				needJIT(t)
			}
			f(t, e)
		})
	}
}

// needJIT skips a test where no machine code can be run.
func needJIT(t testing.TB) {
	t.Helper()
	p, err := bpfjit.CompileBytes(assemble(t, "r0 = 0\nexit"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if info := p.Info(); info.Engine != bpfjit.EngineJIT {
		t.Skipf("no machine code: %v", info.Reason)
	}
}

// assemble makes the bytes of a program of its text.
func assemble(t testing.TB, text string) []byte {
	t.Helper()
	insns, err := bpf.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return bpf.Encode(insns)
}

// program compiles text.
func program(t testing.TB, e bpfjit.Engine, text string, more ...func(*bpfjit.Options)) *bpfjit.Program {
	t.Helper()
	opts := bpfjit.Options{Name: "test", Engine: e}
	for _, f := range more {
		f(&opts)
	}
	p, err := bpfjit.CompileBytes(assemble(t, text), &opts)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// spec reads an object.
func spec(t testing.TB, path string) *ebpf.CollectionSpec {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := bpfjit.ReadSpec(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
