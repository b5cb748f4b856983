package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"github.com/bpfjit/bpfjit/internal/printable"
	"github.com/bpfjit/bpfjit/internal/stages"
)

// shown are the stages that the profile has, in their order, without Total.
// What is blinded has one more.
func (r *benchReport) shown() []stages.Stage {
	if r.Profile == "cage" {
		return []stages.Stage{stages.Decode, stages.Check, stages.Lower, stages.Blind, stages.Draft, stages.Jumps, stages.Join}
	}
	return []stages.Stage{stages.Decode, stages.Blind, stages.Draft, stages.Jumps, stages.Join}
}

// tables writes what was measured for people.
func (r *benchReport) tables(w io.Writer) {
	fmt.Fprintf(w, "%s, profile %s; nanoseconds an instruction\n\n", r.Object, r.Profile)
	r.table(w, "program", r.Programs)
	fmt.Fprint(w, "\nGenerated programs with the frequencies of its opcodes:\n\n")
	r.table(w, "", r.Generated)
}

// table writes two lines a program, plain and blinded.
func (r *benchReport) table(w io.Writer, name string, programs []*benchProgram) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	lead := func(text string) {
		if name != "" {
			fmt.Fprintf(t, "%s\t", text)
		}
	}
	lead(name)
	fmt.Fprint(t, "insns\t\tpasses\tbytes\ttotal\t")
	for _, s := range r.shown() {
		fmt.Fprintf(t, "%v\t", s)
	}
	fmt.Fprint(t, "MB/s\tpublish\t\n")
	for _, p := range programs {
		r.line(t, lead, printable.Name(p.Name), fmt.Sprint(p.Insns), "plain", p, p.Plain)
		r.line(t, lead, "", "", "blinded", p, p.Blinded)
	}
	t.Flush()
	for _, p := range programs {
		for _, x := range []struct {
			how string
			r   *benchResult
		}{{"", p.Plain}, {" when blinded", p.Blinded}} {
			if x.r.Refused != "" {
				fmt.Fprintf(w, "%s is refused%s: %s\n", cmp.Or(printable.Name(p.Name), fmt.Sprintf("that of %d instructions", p.Insns)), x.how, x.r.Refused)
			}
		}
	}
}

func (r *benchReport) line(t io.Writer, lead func(string), name, insns, how string, p *benchProgram, b *benchResult) {
	lead(name)
	fmt.Fprintf(t, "%s\t%s\t", insns, how)
	if b.Refused != "" {
		fmt.Fprint(t, "refused\t\n")
		return
	}
	total := b.stage(stages.Total)
	fmt.Fprintf(t, "%d\t%d\t%.2f\t", b.Passes, b.Bytes, total)
	for _, s := range r.shown() {
		if ns := b.stage(s); ns != 0 {
			fmt.Fprintf(t, "%.2f\t", ns)
		} else {
			fmt.Fprint(t, "-\t")
		}
	}
	fmt.Fprintf(t, "%.0f\t", float64(b.Bytes)/float64(p.Insns)/total*1e3)
	if b.Publish != 0 {
		fmt.Fprintf(t, "%v\t\n", threeDigits(b.Publish))
	} else {
		fmt.Fprint(t, "-\t\n")
	}
}

// threeDigits rounds nanoseconds to three digits.
func threeDigits(ns float64) time.Duration {
	unit := 1.0
	for ns/unit >= 1000 {
		unit *= 10
	}
	return time.Duration(math.Round(ns/unit) * unit)
}
