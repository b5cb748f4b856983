package stages

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/mixed"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
)

// TestCompile: what is timed is what the compiler makes, in memory of its own
// and in memory that was used before.
func TestCompile(t *testing.T) {
	for _, cage := range []bool{false, true} {
		c := &Compiler{Options: Options{Cage: cage}}
		for _, n := range []int{3000, 20, 500} {
			insns := mixed.Real().Program(1, n)
			if err := c.Compile(bpf.Encode(insns)); err != nil {
				t.Fatal(err)
			}
			p := &bpf.Program{Insns: insns}
			want, err := jit.Compile(p, Kernel, mainFunc)
			if cage {
				if p, err = lower.Lower(p); err == nil {
					want, err = jit.CompileCage(p, &jit.Cage)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.Code().Bytes, want.Bytes) {
				t.Errorf("cage %v, %d slots: other code", cage, n)
			}
		}
	}
}

// TestStages: every stage can be repeated, in any order, and leaves the code
// as it was.
func TestStages(t *testing.T) {
	slots := bpf.Encode(mixed.Real().Program(1, 2500))
	for _, o := range []Options{{}, {Cage: true}, {Blind: true}, {Cage: true, Blind: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			c := &Compiler{Options: o}
			work, err := c.Stages(slots)
			if err != nil {
				t.Fatal(err)
			}
			code := bytes.Clone(c.Code().Bytes)
			for range 2 {
				for _, w := range slices.Backward(work[1:]) {
					if w.Stage == Blind {
						continue // other numbers, other code
					}
					if err := w.Run(); err != nil {
						t.Errorf("%v: %v", w.Stage, err)
					}
				}
			}
			if !bytes.Equal(c.Code().Bytes, code) {
				t.Error("other code")
			}
			times, err := c.Time(slots, 0)
			if err != nil {
				t.Fatal(err)
			}
			for s, d := range times {
				cageOnly, kernelOnly := Stage(s) == Lower || Stage(s) == Check, Stage(s) == Draft || Stage(s) == Join
				want := !(cageOnly && !o.Cage || kernelOnly && o.Cage || Stage(s) == Blind && !o.Blind)
				if Stage(s) != Jumps && (d > 0) != want {
					t.Errorf("%v took %v", Stage(s), d)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, slots := range []string{"", "1234567", "12345678", "\x95\x00\x00\x00\x00\x00\x00\x00\x95"} {
		for _, o := range []Options{{}, {Cage: true}} {
			var e *bpf.Error
			if _, err := (&Compiler{Options: o}).Stages([]byte(slots)); !errors.As(err, &e) {
				t.Errorf("%q: %v", slots, err)
			}
		}
	}
}

func TestLeast(t *testing.T) {
	n := 0
	d, err := Least(func() error { n++; return nil }, time.Millisecond)
	if err != nil || d < 0 || n < minBatches {
		t.Errorf("%v, %v, %d runs", d, err, n)
	}
	fails := errors.New("fails")
	if _, err := Least(func() error { return fails }, time.Hour); err != fails {
		t.Errorf("%v", err)
	}
	if m := Median([]time.Duration{9, 1, 5}); m != 5 {
		t.Errorf("the median is %d", m)
	}
}
