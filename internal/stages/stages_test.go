package stages

import (
	"bytes"
	"errors"
	"fmt"
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

// TestWatch: watching changes nothing, and every stage of a way takes time.
func TestWatch(t *testing.T) {
	slots := bpf.Encode(mixed.Real().Program(1, 2500))
	for _, o := range []Options{{}, {Cage: true}, {Blind: true}, {Cage: true, Blind: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			c := &Compiler{Options: o}
			if err := c.Compile(slots); err != nil {
				t.Fatal(err)
			}
			code, passes := bytes.Clone(c.Code().Bytes), c.Passes()
			var sum Times
			if err := c.Watch(slots, &sum); err != nil {
				t.Fatal(err)
			}
			if !o.Blind && !(bytes.Equal(c.Code().Bytes, code) && c.Passes() == passes) { // other numbers, other code
				t.Error("other code")
			}
			times, err := c.Time(slots, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, times := range []Times{sum, times} {
				for s := Check; s < NumStages; s++ { // decoding may take no time
					want := !((s == Lower || s == Check) && !o.Cage || s == Blind && !o.Blind)
					if (times[s] > 0) != want {
						t.Errorf("%v took %v", s, times[s])
					}
				}
			}
			if sum[Total] != 0 || times[Total] <= 0 {
				t.Errorf("total: %v watched, %v timed", sum[Total], times[Total])
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, slots := range []string{"", "1234567", "12345678", "\x95\x00\x00\x00\x00\x00\x00\x00\x95"} {
		for _, o := range []Options{{}, {Cage: true}} {
			var e *bpf.Error
			if err := (&Compiler{Options: o}).Watch([]byte(slots), new(Times)); !errors.As(err, &e) {
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
