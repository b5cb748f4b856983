package bpfjit_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestConformance runs the public conformance vectors, with all 64 bits of r0.
func TestConformance(t *testing.T) {
	rows := testprog.Open(t)
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		right := 0
		for _, r := range rows {
			p, err := bpfjit.CompileBytes(bpf.Encode(r.Insns), &bpfjit.Options{Name: r.Name, Engine: e})
			if err != nil {
				t.Error(err)
				continue
			}
			got, err := p.Run(r.Memory)
			if err != nil || got != r.Expect.Value {
				t.Errorf("%s: %#x, %v; want %#x", r.Name, got, err, r.Expect.Value)
			} else {
				right++
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		t.Logf("open %d/%d", right, len(rows))
		if len(rows) != 210 {
			t.Errorf("%d rows, want 210", len(rows))
		}
	})
}

// TestNegative sees to it that reserved fields are refused, by name.
func TestNegative(t *testing.T) {
	rows := testprog.Negative(t)
	refused := 0
	for _, r := range rows {
		_, err := bpfjit.CompileBytes(bpf.Encode(r.Insns), &bpfjit.Options{Name: r.Name})
		var ce *bpfjit.CompileError
		if !errors.As(err, &ce) || ce.Offset < 0 || ce.Field == "" || !strings.Contains(err.Error(), ce.Field+" is ") {
			t.Errorf("%s: %v doesn't name slot and field", r.Name, err)
			continue
		}
		refused++
	}
	t.Logf("negative %d/%d", refused, len(rows))
	if len(rows) != 45 {
		t.Errorf("%d rows, want 45", len(rows))
	}
}

// TestKernels runs the kernels of the benchmark, as plain functions and as XDP
// programs, and compares with what their native builds gave.
func TestKernels(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "kernels", "results.txt"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := os.ReadFile(filepath.Join("testdata", "kernels", "ctx1024.bin"))
	if err != nil {
		t.Fatal(err)
	}
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		kernels := 0
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			want, err := strconv.ParseUint(f[1], 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			for _, suffix := range []string{".o", ".xdp.o"} {
				p, err := bpfjit.Load(spec(t, filepath.Join("testdata", "kernels", f[0]+suffix)), "", &bpfjit.Options{Engine: e})
				if err != nil {
					t.Fatal(err)
				}
				var r0 uint64
				if suffix == ".o" {
					r0, err = p.Run(append([]byte(nil), ctx...))
				} else {
					r0, _, err = p.RunPacket(ctx)
					r0 = uint64(uint32(r0)) // it returns an int
				}
				if err != nil || r0 != want {
					t.Errorf("%s%s: %#x, %v; want %#x", f[0], suffix, r0, err, want)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				kernels++
			}
		}
		if kernels != 16 {
			t.Errorf("%d kernels, want 16", kernels)
		}
	})
}
