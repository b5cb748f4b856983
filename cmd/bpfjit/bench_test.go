package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// sampleBench is a report with made-up numbers.
func sampleBench(profile string) *benchReport {
	r := &benchReport{Object: `a<b> & "c".o`, Profile: profile}
	result := func(n, passes int, blinded bool, scale float64) *benchResult {
		b := &benchResult{Passes: passes, Bytes: 5 * n, NS: map[string]float64{"total": 23 * scale}, Publish: 123.4 * float64(n)}
		for k, s := range r.shown() {
			if blinded || s != stages.Blind {
				b.NS[s.String()] = float64(k+1) * scale
			}
		}
		return b
	}
	r.Programs = []*benchProgram{
		{Name: "first", Insns: 100, Plain: result(100, 3, false, 1), Blinded: result(100, 4, true, 2)},
		{Name: "far", Insns: 60, Plain: result(60, 3, false, 1), Blinded: &benchResult{Refused: "a jump is too far"}},
	}
	for k, n := range []int{20, 100, 1_000, 1_000_000} {
		r.Generated = append(r.Generated, &benchProgram{Insns: n, Plain: result(n, 3+k, false, 1.2), Blinded: result(n, 4+k, true, 2.5-float64(k)/4)})
	}
	r.Generated[2].Plain.Publish = 0
	r.Generated[3].Blinded = &benchResult{Refused: "the length doesn't settle"}
	return r
}

// TestBenchReport compares tables and plots with files, which -update writes.
// To see a plot, open testdata/bench/*.svg in a browser.
func TestBenchReport(t *testing.T) {
	for _, profile := range []string{"kernel", "cage"} {
		r := sampleBench(profile)
		var table, plot bytes.Buffer
		r.tables(&table)
		r.plot(&plot)
		for name, got := range map[string][]byte{profile + ".txt": table.Bytes(), profile + ".svg": plot.Bytes()} {
			file := filepath.Join("testdata", "bench", name)
			golden.Compare(t, file, string(got))
		}
		wellFormed(t, plot.Bytes())
	}
}

// wellFormed parses XML.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("the plot: %v", err)
			return
		}
	}
}

// TestBenchPlotEdges: no program at all, one size, and times of nothing.
func TestBenchPlotEdges(t *testing.T) {
	refused := &benchResult{Refused: "no"}
	for _, plain := range []*benchResult{refused, {NS: map[string]float64{"total": 0}}, {NS: map[string]float64{"total": 1e-9}}, {NS: map[string]float64{"total": 1e9}}} {
		r := &benchReport{Profile: "cage", Generated: []*benchProgram{{Insns: 7, Plain: plain, Blinded: refused}}}
		var plot bytes.Buffer
		r.plot(&plot)
		wellFormed(t, plot.Bytes())
		if s := plot.String(); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
			t.Errorf("a coordinate is none:\n%s", s)
		}
	}
}

func TestRoundStep(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.3: 0.5, 1: 1, 1.1: 2, 4: 5, 6: 10, 70: 100} {
		if got := roundStep(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("%v becomes %v, want %v", v, got, want)
		}
	}
}
