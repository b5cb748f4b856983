package machine

import (
	"errors"
	"runtime"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

// TestPlatform: on Linux on x86-64 code can run, unless the build does without
// assembly; elsewhere the error says so.
func TestPlatform(t *testing.T) {
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" && !purego {
		if err := Check(); err != nil {
			t.Error(err)
		}
		return
	}
	for _, err := range []error{Available(), Check()} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
}

func TestHelpersLookup(t *testing.T) {
	f := func(n uint64) abi.HelperFunc {
		return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return n, nil }
	}
	numbers := []uint32{0, 1, 211, maxLow - 1, maxLow, 1 << 31, 1<<32 - 1}
	funcs := map[uint32]abi.HelperFunc{}
	for _, n := range numbers {
		funcs[n] = f(uint64(n))
	}
	h := NewHelpers(funcs)
	for _, n := range numbers {
		if got, _ := h.Lookup(n)(nil, 0, 0, 0, 0, 0); got != uint64(n) {
			t.Errorf("helper %d is %d", n, got)
		}
		if _, ok := funcs[n+2]; !ok && h.Lookup(n+2) != nil {
			t.Errorf("there is a helper %d", n+2)
		}
	}
	if (*Helpers)(nil).Lookup(1) != nil || NewHelpers(nil).Lookup(0) != nil {
		t.Error("an empty set has helpers")
	}
}

func TestHelpersNil(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewHelpers(map[uint32]abi.HelperFunc{1: nil})
}
