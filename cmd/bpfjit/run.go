package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bpfjit/bpfjit"
)

const runText = `Runs a program of an object on packets, each after the other, and shows what it
returns, what it rewrites, and what is in its maps afterwards.

object   an ELF file that clang made; without one, the embedded example runs
packets  captures (pcap, pcapng), hex text, or raw bytes; - is standard input

A program that takes no packets gets the memory of -mem, if any.`

// runner holds the flags of the subcommand and what it works with.
type runner struct {
	object  *object
	program string
	opts    bpfjit.Options
	trace   bytes.Buffer
	repeat  int
	shown   int // elements of a map
}

func runRun(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	var r runner
	set := flags(stderr, "run", "[object [packets...]]", runText)
	set.StringVar(&r.program, "prog", "", "`name` of the program; needed if the object has several")
	set.TextVar(&r.opts.Engine, "engine", bpfjit.EngineAuto, "`engine`: auto, jit or interp")
	set.Int64Var(&r.opts.Budget, "budget", bpfjit.DefaultBudget, "instructions that a run may execute; < 0: without end")
	set.BoolVar(&r.opts.Blinding, "blind", false, "hide the program's constants in its code")
	set.IntVar(&r.repeat, "repeat", 1000, "runs to measure the time of one, on maps of their own; 0: don't")
	set.TextVar(&r.opts.Perf, "perf", bpfjit.PerfFiles(0), "tell perf(1) of the code in `files`: map (/tmp/perf-PID.map), dump (/tmp/jit-PID.dump) or map,dump")
	var packet, mem *string // nil: none
	flagOf := func(to **string) func(string) error { return func(value string) error { *to = &value; return nil } }
	set.Func("hex", "a packet in `hex`, blanks allowed, or @file", flagOf(&packet))
	set.Func("mem", "run on memory instead of packets: `hex`, or @file", flagOf(&mem))
	set.IntVar(&r.shown, "elements", 1000, "how many elements of a map are shown at most")
	asJSON := set.Bool("json", false, "one JSON object")
	if exit, done := parse(set, stdout, args); done {
		return exit
	}
	if r.repeat < 0 {
		return misused(set, "-repeat is %d", r.repeat)
	}
	if r.shown < 0 {
		return misused(set, "-elements is %d", r.shown)
	}
	report, err := func() (*runReport, error) {
		var err error
		if r.object, err = openObject(set.Arg(0)); err != nil {
			return nil, err
		}
		inputs, err := r.inputs(stdin, set.Args(), packet, mem)
		if err != nil {
			return nil, err
		}
		return r.run(inputs)
	}()
	if err != nil {
		return fail(stderr, "run", err)
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(report)
	} else {
		err = report.write(stdout)
	}
	switch {
	case err != nil:
		return fail(stderr, "run", err)
	case report.failed():
		return exitFail
	}
	return exitOK
}

// An input is what a program is run on.
type input struct {
	data   []byte
	packet bool
}

// inputs collects what the command line says.
func (r *runner) inputs(stdin io.Reader, args []string, packet, mem *string) ([]input, error) {
	var list []input
	add := func(packets [][]byte) {
		for _, p := range packets {
			list = append(list, input{p, true})
		}
	}
	if mem != nil {
		b, err := parseMemory(*mem)
		if err != nil {
			return nil, fmt.Errorf("-mem: %w", err)
		}
		list = append(list, input{b, false})
	}
	if packet != nil {
		b, err := parseMemory(*packet)
		if err != nil {
			return nil, fmt.Errorf("-hex: %w", err)
		}
		add([][]byte{b})
	}
	for _, name := range args[min(1, len(args)):] {
		packets, err := readPackets(stdin, name)
		if err != nil {
			return nil, err
		}
		add(packets)
	}
	if list == nil && len(args) == 0 {
		packets, err := parseHex(examplePackets)
		if err != nil {
			return nil, err
		}
		add(packets)
	}
	return list, nil
}

// run runs the program on all inputs.
func (r *runner) run(inputs []input) (*runReport, error) {
	r.opts.Trace = &r.trace
	prog, err := r.object.load(r.program, &r.opts)
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	if err := r.perfError(prog.Info()); err != nil {
		return nil, fmt.Errorf("-perf: %w", err)
	}
	in, err := prog.NewInstance()
	if err != nil {
		return nil, err
	}
	defer in.Close()

	report := newRunReport(prog, r.object.name)
	if inputs == nil {
		if takesPackets(prog) {
			return nil, errors.New("no packets: name a file with some, or use -hex or -mem")
		}
		inputs = []input{{}}
	}
	for _, input := range inputs {
		row := newRunRow(input)
		r.trace.Reset()
		r0, out, err := once(in, input)
		row.finish(prog, r0, out, err)
		row.Used = in.Used()
		if s := strings.TrimRight(r.trace.String(), "\n"); s != "" {
			row.Trace = strings.Split(s, "\n")
		}
		report.Runs = append(report.Runs, row)
	}
	report.maps(prog, r.shown)
	return report, r.measure(inputs, report)
}

// perfError says why perf(1) isn't told what it was to be told.
func (r *runner) perfError(info bpfjit.Info) error {
	if r.opts.Perf != 0 && info.Engine != bpfjit.EngineJIT {
		return errors.New("an interpreted program has no code to tell of")
	}
	return info.Perf
}

// once makes one run, and returns what became of the input.
func once(in *bpfjit.Instance, input input) (r0 uint64, out []byte, err error) {
	if input.packet {
		return in.RunPacket(input.data)
	}
	out = bytes.Clone(input.data)
	r0, err = in.Run(out)
	return r0, out, err
}

// measureFor is how long the time of one input's runs is measured at most.
const measureFor = 20 * time.Millisecond

// measure takes the time of runs, with another load of the object, so that
// they leave no traces in the maps that are shown.
func (r *runner) measure(inputs []input, report *runReport) error {
	if r.repeat <= 0 {
		return nil
	}
	opts := r.opts
	opts.Trace = nil
	prog, err := r.object.load(r.program, &opts)
	if err != nil {
		return err
	}
	defer prog.Close()
	in, err := prog.NewInstance()
	if err != nil {
		return err
	}
	defer in.Close()
	for i, input := range inputs {
		if report.Runs[i].Error != "" {
			continue
		}
		runs, begin := 0, time.Now()
		for runs < r.repeat && (runs&15 != 0 || time.Since(begin) < measureFor) {
			if _, _, err := once(in, input); err != nil {
				return nil // its maps have filled up, say: no times
			}
			runs++
		}
		report.Runs[i].Nanoseconds = float64(time.Since(begin).Nanoseconds()) / float64(runs)
	}
	return nil
}
