//go:build linux && amd64 && !purego

package machine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestTrace: an execution trace that is taken while code runs is complete,
// knows the goroutine by its region, and gives the profiler's samples the
// stack of Run's caller.
func TestTrace(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	g := newRig(t)
	code := assemble(t, endless(1))
	file := filepath.Join(t.TempDir(), "trace")
	var text string
	var unreadable error
	for range 20 { // until there are samples
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := pprof.StartCPUProfile(io.Discard); err != nil {
			t.Skip("another profile is being taken:", err)
		}
		if err := trace.Start(f); err != nil {
			t.Skip("another trace is being taken:", err)
		}
		var stop atomic.Bool
		time.AfterFunc(200*time.Millisecond, func() { stop.Store(true) })
		trace.WithRegion(context.Background(), "generated code", func() { runAWhile(g, code, &stop) })
		trace.Stop()
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tool, "tool", "trace", "-d=parsed", file).CombinedOutput()
		if err != nil { // may be the fault of the machine's clocks, once
			unreadable = fmt.Errorf("the trace can't be read: %w\n%s", err, out)
			continue
		}
		if text = string(out); sampled(text) {
			break
		}
	}
	if text == "" {
		t.Fatal(unreadable)
	}
	if n := strings.Count(text, `"generated code"`); n != 2 {
		t.Errorf("%d ends of the region, want 2", n)
	}
	if !sampled(text) {
		t.Error("no sample has the stack of Run")
	}
}

// sampled reports whether a parsed trace has a sample of runAWhile.
func sampled(text string) bool {
	_, text, found := strings.Cut(text, "StackSample")
	for found {
		var sample string
		sample, text, found = strings.Cut(text, "StackSample")
		sample, _, _ = strings.Cut(sample, "\nM=")
		if strings.Contains(sample, "machine.once") && strings.Contains(sample, "machine.runAWhile") {
			return true
		}
	}
	return false
}
