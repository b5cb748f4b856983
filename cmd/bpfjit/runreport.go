package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// runReport is what run shows, and what -json writes.
type runReport struct {
	Program string    `json:"program"`
	Object  string    `json:"object"`
	Type    string    `json:"type,omitempty"`
	Engine  string    `json:"engine"`
	Reason  string    `json:"reason,omitempty"` // why it is interpreted
	Slots   int       `json:"slots"`
	Lowered int       `json:"lowered_slots,omitempty"`
	Code    int       `json:"code_bytes,omitempty"`
	Passes  []int     `json:"passes,omitempty"`
	Image   int       `json:"image_bytes,omitempty"`
	Runs    []*runRow `json:"runs"`
	Maps    []mapRow  `json:"maps"`
	More    []string  `json:"maps_with_more,omitempty"` // names of those that have more elements

	info bpfjit.Info
}

// runRow is one run.
type runRow struct {
	What    string   `json:"what"` // the input, in words
	Bytes   int      `json:"bytes"`
	R0      string   `json:"r0,omitempty"`
	Verdict string   `json:"verdict,omitempty"`
	Out     string   `json:"out_hex,omitempty"` // as the program left it, if it changed
	Trace   []string `json:"trace,omitempty"`
	Used    int64    `json:"used"` // of the budget
	Error   string   `json:"error,omitempty"`
	Insn    *int     `json:"insn,omitempty"` // the slot at fault
	Line    string   `json:"line,omitempty"` // where it was compiled from

	Nanoseconds float64 `json:"ns,omitempty"` // of one run

	before, after []byte
	packet        bool
	long          string // the error with its surroundings
}

// mapRow is an element of a map, or a global variable.
type mapRow struct {
	Map   string `json:"map"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

func newRunReport(prog *bpfjit.Program, object string) *runReport {
	info := prog.Info()
	r := &runReport{
		Program: prog.Name(), Object: object, Type: typeName(prog), Engine: info.Engine.String(),
		Slots: info.Insns, Lowered: info.Lowered, Code: info.Code, Passes: info.Passes, Image: info.Image,
		Maps: []mapRow{}, info: info,
	}
	if info.Reason != nil {
		r.Reason = info.Reason.Error()
	}
	return r
}

func newRunRow(in input) *runRow {
	r := &runRow{What: "memory", Bytes: len(in.data), before: in.data, packet: in.packet}
	switch {
	case in.packet:
		r.What = describe(in.data)
	case in.data == nil:
		r.What = "nothing"
	}
	return r
}

// finish notes how the run ended.
func (r *runRow) finish(prog *bpfjit.Program, r0 uint64, out []byte, err error) {
	if string(out) != string(r.before) {
		r.after = append([]byte{}, out...)
		r.Out = hex.EncodeToString(out)
	}
	if err != nil {
		r.Error, r.long = err.Error(), fmt.Sprintf("%+v", err)
		r.Insn = slotOf(err)
		var re *bpfjit.RunError
		if errors.As(err, &re) {
			r.Line = re.Line.String()
		}
		return
	}
	r.R0 = fmt.Sprintf("%#x", r0)
	r.Verdict = verdict(prog, r0)
}

// maps notes what is in the maps that programs can change, no more than limit
// elements of each.
func (r *runReport) maps(prog *bpfjit.Program, limit int) {
	for _, m := range prog.Maps() {
		if m.ReadOnly() {
			continue
		}
		n := 0
		for key, value := range m.Text() {
			if n++; n > limit {
				r.More = append(r.More, m.Name())
				break
			}
			r.Maps = append(r.Maps, mapRow{m.Name(), key, value})
		}
	}
}

// failed reports whether a run ended with an error.
func (r *runReport) failed() bool {
	for _, row := range r.Runs {
		if row.Error != "" {
			return true
		}
	}
	return false
}

// write writes the report for a person.
func (r *runReport) write(w io.Writer) error {
	var b strings.Builder
	kind := ""
	if r.Type != "" {
		kind = fmt.Sprintf(" (%s)", strings.ToLower(r.Type))
	}
	fmt.Fprintf(&b, "%s%s of %s\n%s\n\n", r.Program, kind, r.Object, summary(&r.info))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tINPUT\tBYTES\tRESULT\tTIME\tNOTE")
	for i, row := range r.Runs {
		result, note := row.Verdict, row.note()
		if row.Error != "" {
			result = "ERROR"
		}
		time := "-"
		if row.Nanoseconds > 0 {
			time = fmt.Sprintf("%.0f ns", row.Nanoseconds)
		}
		fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\t%s\n", i+1, row.What, row.Bytes, result, time, note)
	}
	table.Flush()
	for i, row := range r.Runs {
		if row.Error != "" {
			fmt.Fprintf(&b, "\n%d: %s", i+1, strings.TrimRight(row.long, "\n")+"\n")
		}
		if row.after != nil {
			fmt.Fprintf(&b, "\n%d as the program left it:\n", i+1)
			changes(&b, row.before, row.after)
		}
	}
	r.writeMaps(&b)
	_, err := io.WriteString(w, blanks.ReplaceAllString(b.String(), "\n"))
	return err
}

// blanks are those that a table leaves at the ends of lines.
var blanks = regexp.MustCompile(` +\n`)

func (r *runReport) writeMaps(w io.Writer) {
	if len(r.Maps) == 0 && len(r.More) == 0 {
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MAP\tKEY\tVALUE")
	for _, m := range r.Maps {
		fmt.Fprintf(table, "%s\t%s\t%s\n", printable.Name(m.Map), m.Key, m.Value)
	}
	table.Flush()
	for _, name := range r.More {
		fmt.Fprintf(w, "%s has more elements, see -elements\n", printable.Name(name))
	}
}

// note is what a row says beside its result.
func (r *runRow) note() string {
	var notes []string
	for _, t := range r.Trace {
		notes = append(notes, fmt.Sprintf("%q", t))
	}
	if r.after != nil && r.packet {
		if what := describe(r.after); what != r.What {
			notes = append(notes, "now "+what)
		} else {
			notes = append(notes, "rewritten")
		}
	}
	return strings.Join(notes, ", ")
}

// changes writes the lines of 16 bytes that differ, as they were and as they
// are.
func changes(w io.Writer, before, after []byte) {
	line := func(b []byte, at int) []byte {
		return b[min(at, len(b)):min(at+16, len(b))]
	}
	for at := 0; at < max(len(before), len(after)); at += 16 {
		was, is := line(before, at), line(after, at)
		if string(was) == string(is) {
			continue
		}
		fmt.Fprintf(w, "  %04x  - % x\n        + % x\n", at, was, is)
	}
}
