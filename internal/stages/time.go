package stages

import (
	"slices"
	"time"
)

// Time times a program, compiled again and again for about as long as limit
// says: Total, and in turns with that the stages.
func (c *Compiler) Time(slots []byte, limit time.Duration) (t Times, err error) {
	var total watch
	compile := func() error { return c.Compile(slots) }
	for start, k := time.Now(), 0; k < minBatches || time.Since(start) < limit; k++ {
		if err := total.run(compile); err != nil {
			return t, err
		}
		var sum Times
		for range total.n {
			if err := c.Watch(slots, &sum); err != nil {
				return t, err
			}
		}
		for s := range sum {
			sum[s] /= time.Duration(total.n)
		}
		t.Least(&sum)
	}
	t[Total] = total.least
	return t, nil
}

const (
	// batch is how long runs are timed together, so that looking at the
	// clock doesn't count.
	batch = 20 * time.Microsecond
	// minBatches is how many batches there are in any case.
	minBatches = 3
)

// Least returns the time of f, of the least disturbed of several batches of
// runs. It takes about as long as limit says, but for very slow f.
func Least(f func() error, limit time.Duration) (time.Duration, error) {
	var w watch
	for start, k := time.Now(), 0; k < minBatches || time.Since(start) < limit; k++ {
		if err := w.run(f); err != nil {
			return 0, err
		}
	}
	return w.least, nil
}

// watch times batches of runs.
type watch struct {
	n     int // runs in a batch
	least time.Duration
}

// run times a batch. The first one finds out how many runs that is.
func (w *watch) run(f func() error) error {
	w.n = max(w.n, 1)
	for {
		began := time.Now()
		for range w.n {
			if err := f(); err != nil {
				return err
			}
		}
		d := time.Since(began)
		if d < batch {
			w.n, w.least = 2*w.n, 0
			continue
		}
		if d /= time.Duration(w.n); w.least == 0 || d < w.least {
			w.least = d
		}
		return nil
	}
}

// Median returns the one in the middle of durations, which it sorts.
func Median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
