//go:build linux && amd64 && !purego

package machine

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/bpfjit/bpfjit/abi"
)

// TestLatency measures how long others wait for an endless loop of generated
// code, beside an endless loop of Go code and none: the collector, a stop of
// the world, and who cancels the run. Nothing is said of how long; what is
// tested is that all of it ends. To see the table:
//
//	BPFJIT_LATENCY=300 go test -count=1 -v -run 'TestLatency$' ./machine
//
// BPFJIT_LATENCY is the number of samples.
func TestLatency(t *testing.T) {
	samples := 5
	if s := os.Getenv("BPFJIT_LATENCY"); s != "" {
		var err error
		if samples, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "procs\twait for\tbeside\tmedian\tp99\tworst")
	for _, procs := range []int{runtime.GOMAXPROCS(0), 1} {
		old := runtime.GOMAXPROCS(procs)
		// In turns, so that a busy machine is unfair to none.
		got := map[[2]string][]time.Duration{}
		for range samples {
			for _, loop := range loops {
				stop := startLoop(t, loop)
				add := func(what string, d time.Duration) {
					got[[2]string{loop, what}] = append(got[[2]string{loop, what}], d)
				}
				var m runtime.MemStats
				add("runtime.GC", measure(runtime.GC))
				add("ReadMemStats", measure(func() { runtime.ReadMemStats(&m) }))
				stop()
				if loop == "generated" {
					add("cancel", cancelOne(t))
				}
			}
		}
		for _, what := range []string{"runtime.GC", "ReadMemStats", "cancel"} {
			for _, loop := range loops {
				d := got[[2]string{loop, what}]
				if d == nil {
					continue
				}
				slices.Sort(d)
				at := func(q float64) time.Duration {
					return d[int(math.Ceil(q*float64(len(d))))-1].Round(100 * time.Nanosecond)
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%v\t%v\t%v\n", procs, what, loop, at(0.5), at(0.99), at(1))
			}
		}
		runtime.GOMAXPROCS(old)
	}
	w.Flush()
	t.Logf("%d samples\n%s", samples, &text)
}

var loops = []string{"none", "go", "generated"}

func measure(f func()) time.Duration {
	time.Sleep(time.Millisecond)
	began := time.Now()
	f()
	return time.Since(began)
}

// startLoop starts an endless loop and returns what stops it.
func startLoop(t *testing.T, loop string) (stop func()) {
	var wg sync.WaitGroup
	switch loop {
	case "go":
		var done atomic.Bool
		wg.Go(func() {
			for !done.Load() {
			}
		})
		return func() { done.Store(true); wg.Wait() }
	case "generated":
		ctx, cancel := context.WithCancel(t.Context())
		running := make(chan bool)
		wg.Go(func() { loopUntil(t, ctx, running) })
		<-running
		return func() { cancel(); wg.Wait() }
	}
	return func() {}
}

// loopUntil runs an endless loop until ctx is done.
func loopUntil(t *testing.T, ctx context.Context, running chan<- bool) {
	g := newRig(t)
	in, out := input{Input: Input{Budget: -1, Poll: ctx.Err}}, Result{}
	im := load(t, assemble(t, endless(1)))
	running <- true
	if once(g.inst, im, &in, &out); out.Stop != abi.StopCancel {
		t.Errorf("%+v", out)
	}
}

// cancelOne returns how long it takes from the call of cancel to the end of
// Run.
func cancelOne(t *testing.T) time.Duration {
	ctx, cancel := context.WithCancel(t.Context())
	running, ended := make(chan bool), make(chan time.Time, 1)
	go func() {
		loopUntil(t, ctx, running)
		ended <- time.Now()
	}()
	<-running
	time.Sleep(2 * time.Millisecond)
	began := time.Now()
	cancel()
	return (<-ended).Sub(began)
}
