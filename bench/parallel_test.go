package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// goroutines are how many work at once.
var goroutines = []int{1, 2, 4, 8}

// BenchmarkParallel does the same work in several goroutines. scaling is how
// much faster that is than one goroutine, whose sweeps take turns; it can't be
// more than the processors, which are beside it, nor on a busy machine as much.
// mutex-wait-ns/program is what that can't hide: how long each piece of work
// waited for a lock.
//
//	work=compile   programs that are compiled, each into memory of its goroutine
//	work=publish   code that is published and freed: one region, one lock
func BenchmarkParallel(b *testing.B) {
	large := bpf.Encode(corpus.Generated(1, 5000)[0].Insns)
	for _, n := range []int{20, 1000} {
		programs := corpus.Generated(200_000/n, n)
		for _, g := range goroutines {
			b.Run(fmt.Sprintf("work=compile/insns=%d/goroutines=%d", n, g), func(b *testing.B) {
				set := newSet(b, stages.Options{}, programs)
				compilers := make([]*stages.Compiler, g)
				for w := range compilers {
					compilers[w] = new(stages.Compiler)
					// Their memory should be of some size: small pieces of several
					// would be in one cache line.
					if err := compilers[w].Compile(large); err != nil {
						b.Fatal(err)
					}
				}
				parallel(b, g, len(set.programs), func(worker, k int) error {
					return compilers[worker].Compile(set.programs[k].slots)
				})
			})
		}
	}
	region, err := image.Default()
	if errors.Is(err, errors.ErrUnsupported) {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	code := []byte{0x31, 0xc0, 0xc3} // xor eax, eax; ret
	const images = 10_000
	for _, g := range goroutines {
		b.Run(fmt.Sprintf("work=publish/goroutines=%d", g), func(b *testing.B) {
			parallel(b, g, images, func(int, int) error {
				im, err := region.Publish(code, nil, nil)
				if err == nil {
					im.Free()
				}
				return err
			})
		})
	}
}

// parallel has g goroutines share n pieces of work, in turns with one
// goroutine that does all of it.
func parallel(b *testing.B, g, n int, f func(worker, k int) error) {
	work := func(g int) func() error {
		return func() error {
			var next atomic.Int64
			errs := make([]error, g)
			var wg sync.WaitGroup
			for w := range g {
				wg.Go(func() {
					const chunk = 16
					for {
						from := int(next.Add(chunk)) - chunk
						if from >= n {
							return
						}
						for k := from; k < min(from+chunk, n); k++ {
							// Not in errs: those of all workers are in one cache line.
							if err := f(w, k); err != nil {
								errs[w] = err
								return
							}
						}
					}
				})
			}
			wg.Wait()
			return errors.Join(errs...)
		}
	}
	wait := mutexWait()
	s := sweep(b, fewSweeps, work(g), work(1))
	sweeps := max(b.N, fewSweeps)
	b.ReportMetric((mutexWait()-wait)*1e9/float64(n*sweeps), "mutex-wait-ns/program")
	b.ReportMetric(float64(s[0].least)/float64(n), "ns/program")
	b.ReportMetric(float64(s[1].least)/float64(s[0].least), "scaling")
	b.ReportMetric(float64(runtime.GOMAXPROCS(0)), "processors")
	b.ReportMetric(0, "ns/op")
}

// mutexWait is how long goroutines have waited for locks, in seconds.
func mutexWait() float64 {
	sample := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64()
}

// BenchmarkLoadCollection loads an object of 100 programs, the command's
// example many times over, with one processor and with all.
func BenchmarkLoadCollection(b *testing.B) {
	object, err := os.ReadFile(filepath.Join("..", "cmd", "bpfjit", "example", "filter.bpf.o"))
	if err != nil {
		b.Fatal(err)
	}
	spec, err := bpfjit.ReadSpec(bytes.NewReader(object))
	if err != nil {
		b.Fatal(err)
	}
	const programs = 100
	originals := spec.Copy().Programs
	for n := 0; len(spec.Programs) < programs; n++ {
		for name, p := range originals {
			p = p.Copy()
			p.Name = fmt.Sprintf("%s_%d", name, n)
			spec.Programs[p.Name] = p
		}
	}
	load := func(procs int) func() error {
		return func() error {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			c, err := bpfjit.LoadCollection(spec, nil)
			if err != nil {
				return err
			}
			return c.Close()
		}
	}
	all := runtime.GOMAXPROCS(0)
	b.Run(fmt.Sprintf("programs=%d", programs), func(b *testing.B) {
		s := sweep(b, fewSweeps, load(all), load(1))
		b.ReportMetric(float64(s[0].least)/programs, "ns/program")
		b.ReportMetric(float64(s[1].least)/float64(s[0].least), "scaling")
		b.ReportMetric(float64(all), "processors")
		b.ReportMetric(0, "ns/op")
	})
}
