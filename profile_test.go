package bpfjit_test

import (
	"bytes"
	"context"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/profile"
)

// labelsHere returns the labels that a goroutine profile shows for the
// goroutine that calls it: {"key":"value"}, or "".
func labelsHere(t *testing.T) string {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		t.Error(err)
	}
	for entry := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(entry, "bpfjit_test.labelsHere") {
			_, labels, _ := strings.Cut(entry, "# labels: ")
			labels, _, _ = strings.Cut(labels, "\n")
			return labels
		}
	}
	t.Error("the profile hasn't its own goroutine")
	return ""
}

// TestLabels: the goroutine has the program's label while it runs, beside
// those of the context, and those of the context afterwards.
func TestLabels(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		for _, on := range []bool{false, true} {
			var inside string
			p := program(t, e, within, helper(func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
				inside = labelsHere(t)
				return 7, nil
			}), func(o *bpfjit.Options) { o.Name, o.Labels = "shown", on })
			in, err := p.NewInstance()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			ctx := pprof.WithLabels(context.Background(), pprof.Labels("mine", "1"))
			own := `{"mine":"1"}`
			for _, c := range []struct {
				name              string
				run               func() (uint64, error)
				off, with, behind string
			}{
				{"Program.RunContext", func() (uint64, error) { return p.RunContext(ctx, nil) }, own, `{"bpf_program":"shown", "mine":"1"}`, own},
				{"Instance.RunContext", func() (uint64, error) { return in.RunContext(ctx, nil) }, own, `{"bpf_program":"shown", "mine":"1"}`, own},
				{"Instance.RunStructContext", func() (uint64, error) { return in.RunStructContext(ctx, nil) }, own, `{"bpf_program":"shown", "mine":"1"}`, own},
				{"RunContext, no labels", func() (uint64, error) { return in.RunContext(t.Context(), nil) }, own, `{"bpf_program":"shown"}`, ""},
				{"Program.Run", func() (uint64, error) { return p.Run(nil) }, own, `{"bpf_program":"shown"}`, ""},
				{"Instance.Run", func() (uint64, error) { return in.Run(make([]byte, 4)) }, own, `{"bpf_program":"shown"}`, ""},
				{"Instance.RunStruct", func() (uint64, error) { return in.RunStruct(nil) }, own, `{"bpf_program":"shown"}`, ""},
			} {
				pprof.SetGoroutineLabels(ctx)
				r0, err := c.run()
				behind := labelsHere(t)
				pprof.SetGoroutineLabels(context.Background())
				want, wantBehind := c.with, c.behind
				if !on {
					want, wantBehind = c.off, c.off
				}
				if r0 != 7 || err != nil || inside != want || behind != wantBehind {
					t.Errorf("%s, on %v: %d, %v; labels %s, want %s; behind it %s, want %s", c.name, on, r0, err, inside, want, behind, wantBehind)
				}
			}
		}
	})
}

// TestLabelsProfile: samples of a CPU profile have the label.
func TestLabelsProfile(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		var stop atomic.Bool
		p := program(t, e, "r1 = 1000\nr1 += -1\nif r1 != 0 goto -2\ncall 1000\nif r0 == 0 goto -5\nexit",
			func(o *bpfjit.Options) {
				o.Name, o.Labels, o.Budget = "labelled", true, -1
				o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
					if stop.Load() {
						return 1, nil
					}
					return 0, nil
				}}
			})
		for range 20 { // until there are samples
			stop.Store(false)
			samples, err := profile.Take(func() {
				time.AfterFunc(200*time.Millisecond, func() { stop.Store(true) })
				if _, err := p.Run(nil); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Skip("another profile is being taken:", err)
			}
			for _, s := range samples {
				// The race detector's own code has no stack.
				if s.Labels["bpf_program"] == "labelled" &&
					slices.ContainsFunc(s.Stack, func(f string) bool { return strings.Contains(f, "Program).") }) {
					return
				}
			}
		}
		t.Error("no sample has the label")
	})
}

// BenchmarkLabels is what labels cost a run.
func BenchmarkLabels(b *testing.B) {
	for _, on := range []string{"off", "on"} {
		b.Run("labels="+on, func(b *testing.B) {
			p := program(b, bpfjit.EngineAuto, "r0 = 0\nexit", func(o *bpfjit.Options) { o.Labels = on == "on" })
			in, err := p.NewInstance()
			if err != nil {
				b.Fatal(err)
			}
			defer in.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := in.Run(nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
