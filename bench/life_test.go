//go:build linux && amd64 && !purego

package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/stages"
	"github.com/bpfjit/bpfjit/machine"
)

// filter returns a program of n slots, at least 4, that computes, branches
// and ends. Its result is n-3.
func filter(b *testing.B, n int) *bpf.Program {
	text := "r0 = 0\nif r0 != 0 goto +1\n" + strings.Repeat("r0 += 1\n", n-3) + "exit"
	insns, err := bpf.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	return &bpf.Program{Insns: insns}
}

// lives is how many programs are alive at once.
const lives = 1000

// BenchmarkLife is the life of a small program of the cage, in steps: compiled
// from its slots, published, run once, freed. ns/life is all of them together,
// compile+publish-ns what it takes to have it ready. via=library is the same by
// CompileSource, Run and Close, with what those keep for errors and listings.
func BenchmarkLife(b *testing.B) {
	for _, n := range []int{20, 100} {
		b.Run(fmt.Sprintf("insns=%d", n), func(b *testing.B) { life(b, filter(b, n)) })
		b.Run(fmt.Sprintf("insns=%d/via=library", n), func(b *testing.B) { libraryLife(b, filter(b, n)) })
	}
}

func life(b *testing.B, p *bpf.Program) {
	if err := machine.Check(); err != nil {
		b.Fatal(err)
	}
	region, err := image.Default()
	if err != nil {
		b.Fatal(err)
	}
	var space cage.Space
	defer space.Close()
	inst, err := space.NewInstance(cage.Window)
	if err != nil {
		b.Fatal(err)
	}
	defer inst.Close()
	slots := bpf.Encode(p.Insns)
	c := &stages.Compiler{Options: stages.Options{Cage: true}}
	images := make([]*image.Image, lives)
	step := func(times int, f func(k int) error) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			began := time.Now()
			for k := range times {
				if err := f(k); err != nil {
					return 0, err
				}
			}
			return time.Since(began), nil
		}
	}
	publish := func(k int) (err error) {
		images[k], err = region.Publish(c.Code().Bytes, nil, nil)
		return err
	}
	steps := []struct {
		name string
		run  func() (time.Duration, error)
	}{
		{"compile", step(lives, func(int) error { return c.Compile(slots) })},
		{"publish", step(lives, publish)},
		{"run", step(lives, func(k int) error {
			if out := once(inst, images[k], 0, 0); out.Stop != abi.StopExit || out.R0 != uint64(len(p.Insns)-3) {
				return fmt.Errorf("%+v", out)
			}
			return nil
		})},
		{"free", step(lives, func(k int) error { images[k].Free(); return nil })},
	}
	least := make([]time.Duration, len(steps))
	for b.Loop() {
		for k, s := range steps {
			d, err := s.run()
			if err != nil {
				b.Fatal(err)
			}
			if least[k] == 0 || d < least[k] {
				least[k] = d
			}
		}
	}
	var all time.Duration
	for k, s := range steps {
		b.ReportMetric(float64(least[k])/lives, s.name+"-ns")
		all += least[k]
	}
	b.ReportMetric(float64(least[0]+least[1])/lives, "compile+publish-ns")
	b.ReportMetric(float64(all)/lives, "ns/life")
	if im, err := region.Publish(c.Code().Bytes, nil, nil); err == nil {
		b.ReportMetric(float64(im.Size()), "B/image")
		im.Free()
	}
	b.ReportMetric(testing.AllocsPerRun(100, func() {
		if err := c.Compile(slots); err != nil {
			b.Fatal(err)
		}
	}), "compile-allocs")
	b.ReportMetric(0, "ns/op")
}

func libraryLife(b *testing.B, p *bpf.Program) {
	space := bpfjit.NewSpace()
	defer space.Close()
	s := sweep(b, fewSweeps, func() error {
		for range lives {
			prog, err := bpfjit.CompileSource(&bpfjit.Source{Program: p}, &bpfjit.Options{Engine: bpfjit.EngineJIT, Space: space})
			if err != nil {
				return err
			}
			if r0, err := prog.Run(nil); err != nil || r0 != uint64(len(p.Insns)-3) {
				return fmt.Errorf("%d, %v", r0, err)
			}
			if err := prog.Close(); err != nil {
				return err
			}
		}
		return nil
	})[0]
	b.ReportMetric(float64(s.least)/lives, "ns/life")
	b.ReportMetric(s.allocs/lives, "allocs/program")
	b.ReportMetric(0, "ns/op")
}
