package bpfjit

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"

	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/perf"
)

// codeRegion returns the memory that a program's code goes to. perf(1) looks in
// a map only for code in memory that no file is behind, which is memory of one
// view.
func codeRegion(s *settings) (*image.Region, error) {
	if s.Perf&PerfMap != 0 {
		return anonymous()
	}
	return image.Default()
}

var anonymous = sync.OnceValues(func() (*image.Region, error) {
	return image.New(image.Config{SingleView: true})
})

// tellPerf tells perf(1) about functions. The log is to be closed with their
// code.
func tellPerf(files PerfFiles, funcs []perf.Func) (*perf.Log, error) {
	log, err := perf.Open(files)
	if err != nil {
		return nil, err
	}
	if err := log.Add(funcs); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// perfFuncs describes the functions of a program, named as a kernel names its
// programs.
func perfFuncs(name string, src *Source, e *native) []perf.Func {
	list := make([]perf.Func, len(e.code.Funcs))
	for i := range list {
		f := &e.code.Funcs[i]
		own := "bpf_prog_" + name
		if first := e.lowered.Source(f.Start); i > 0 {
			if n := src.FuncName(first); n != "" {
				own += "." + n
			} else {
				own += fmt.Sprintf(".%d", first)
			}
		}
		list[i] = perf.Func{
			Name:  own,
			Addr:  uint64(e.image.Addr()) + uint64(f.Entry),
			Code:  e.code.Bytes[f.Entry:f.Limit],
			Lines: perfLines(src, e, f.Entry, f.Limit),
		}
	}
	return list
}

// perfLines returns the lines of the code between two offsets. What is before
// the first slot of a function belongs to its first line.
func perfLines(src *Source, e *native, from, to uint32) (lines []perf.Line) {
	last := -1
	for at := from; at < to; at++ {
		slot := e.code.Slot(at)
		if slot < 0 || slot == last {
			continue
		}
		last = slot
		l := src.Line(e.lowered.Source(slot))
		if l.Number == 0 {
			continue
		}
		line := perf.Line{Offset: int(at - from), File: l.File, Number: l.Number}
		if n := len(lines); n == 0 {
			line.Offset = 0
		} else if before := lines[n-1]; before.File == line.File && before.Number == line.Number {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

// labels are what a goroutine carries while it runs a program.
type labels struct {
	set  pprof.LabelSet
	only context.Context // has the set and no other labels
}

func newLabels(program string) *labels {
	set := pprof.Labels("bpf_program", program)
	return &labels{set, pprof.WithLabels(context.Background(), set)}
}

// put gives the goroutine the labels, beside those of a context.
func (l *labels) put(ctx context.Context) {
	with := l.only // spares most runs the work of making one
	pprof.ForLabels(ctx, func(_, _ string) bool {
		with = pprof.WithLabels(ctx, l.set)
		return false
	})
	pprof.SetGoroutineLabels(with)
}
