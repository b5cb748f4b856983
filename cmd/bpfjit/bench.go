package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/mixed"
	"github.com/bpfjit/bpfjit/internal/stages"
)

const benchText = `Times how long bpfjit takes to compile an object, stage by stage, plain and with
constants hidden: first each program of the object, then programs of several
sizes that are generated with the frequencies of the object's opcodes. Without
an object, the embedded example is measured.

Programs are compiled from their slots as they stand in the object, with
constants in place of maps. Profile "kernel" makes the code of Linux 6.18,
"cage" the code that bpfjit runs. Publishing is finding a place in executable
memory and copying the code there; freeing counts.

Stages are timed on the way, and the total without a clock in between. Times are
those of the least disturbed runs, for code that is in the caches. The plot is
an SVG file.`

// benchSizes is the value of flag -sizes.
type benchSizes []int

func (s *benchSizes) String() string {
	var text []string
	for _, n := range *s {
		text = append(text, strconv.Itoa(n))
	}
	return strings.Join(text, ",")
}

func (s *benchSizes) Set(text string) error {
	*s = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 2 || n > bpf.MaxSlots {
			return fmt.Errorf("%q is not a number of instructions from 2 to %d", word, bpf.MaxSlots)
		}
		*s = append(*s, n)
	}
	slices.Sort(*s)
	*s = slices.Compact(*s)
	return nil
}

// bench holds the flags of the subcommand and what it works with.
type bench struct {
	cage     bool
	limit    time.Duration
	seed     uint64
	sizes    benchSizes
	progress progress
	region   *image.Region // nil: nothing can be published here
}

func runBench(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	b := bench{sizes: benchSizes{20, 100, 1_000, 10_000, 100_000, 1_000_000}}
	set := flags(stderr, "bench", "[object]", benchText)
	program := set.String("prog", "", "only the program of this `name`")
	profile := set.String("profile", "kernel", "kernel or cage: which code to make")
	set.DurationVar(&b.limit, "time", 50*time.Millisecond, "how long to look at each stage of each program")
	set.Var(&b.sizes, "sizes", "the `numbers` of instructions of generated programs")
	set.Uint64Var(&b.seed, "seed", 1, "which programs are generated")
	svg := set.String("svg", "bench.svg", "the `file` to write the plot to; empty for none")
	asJSON := set.Bool("json", false, "the measurements as one JSON object instead of tables")
	if exit, done := parse(set, stdout, args); done {
		return exit
	}
	switch {
	case set.NArg() > 1:
		return misused(set, "takes one object, not %d", set.NArg())
	case *profile != "kernel" && *profile != "cage":
		return misused(set, "there is no profile %q (kernel, cage)", *profile)
	case b.limit < 0:
		return misused(set, "-time is %v", b.limit)
	}
	b.cage = *profile == "cage"
	b.progress.start(stderr)
	if region, err := image.Default(); err == nil {
		b.region = region
	}
	report, err := b.object(set.Arg(0), *program)
	b.progress.clear()
	if err == nil && *svg != "" {
		err = writePlot(*svg, report)
	}
	if err == nil {
		err = report.write(stdout, *asJSON, *svg)
	}
	if err != nil {
		return fail(stderr, "bench", err)
	}
	return exitOK
}

func writePlot(name string, r *benchReport) error {
	var plot bytes.Buffer
	r.plot(&plot)
	return os.WriteFile(name, plot.Bytes(), 0o666)
}

// benchReport is what was measured.
type benchReport struct {
	Object    string          `json:"object"`
	Profile   string          `json:"profile"`
	Programs  []*benchProgram `json:"programs"`
	Generated []*benchProgram `json:"generated"`
}

// benchProgram is a program of the object, or a generated one.
type benchProgram struct {
	Name    string       `json:"name,omitempty"`
	Insns   int          `json:"insns"` // slots
	Plain   *benchResult `json:"plain"`
	Blinded *benchResult `json:"blinded"`
}

// benchResult is how a program was compiled.
type benchResult struct {
	// Refused is why it wasn't; then nothing else is known.
	Refused string `json:"refused,omitempty"`
	// Passes over the jumps; of several functions, the most.
	Passes int `json:"passes,omitempty"`
	Bytes  int `json:"bytes,omitempty"`
	// Nanoseconds an instruction, by stage.
	NS map[string]float64 `json:"ns_per_insn,omitempty"`
	// Publish is in nanoseconds for the whole program. 0: not possible here.
	Publish float64 `json:"publish_ns,omitempty"`
}

// stage returns the nanoseconds an instruction of a stage.
func (r *benchResult) stage(s stages.Stage) float64 { return r.NS[s.String()] }

// object measures an object.
func (b *bench) object(name, program string) (*benchReport, error) {
	o, err := openObject(name)
	if err != nil {
		return nil, err
	}
	spec, err := bpfjit.ReadSpec(bytes.NewReader(o.data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	names := slices.Sorted(maps.Keys(spec.Programs))
	if program != "" {
		names = []string{program}
	}
	b.progress.label = o.name
	r := &benchReport{Object: o.name, Profile: "kernel"}
	if b.cage {
		r.Profile = "cage"
	}
	var bodies [][]bpf.Insn
	for _, name := range names {
		src, err := bpfjit.SourceOf(spec, name)
		if err != nil {
			if program != "" {
				return nil, fmt.Errorf("%s: %w", o.name, err)
			}
			refused := &benchResult{Refused: err.Error()}
			r.Programs = append(r.Programs, &benchProgram{Name: name, Plain: refused, Blinded: refused})
			continue
		}
		insns := b.constants(src)
		p := b.measure(name, insns)
		r.Programs = append(r.Programs, p)
		if bpf.Check(&bpf.Program{Insns: insns}, bpf.Source) == nil {
			bodies = append(bodies, insns)
		}
	}
	mix := mixed.Of(bodies...)
	if mix == nil {
		return nil, fmt.Errorf("%s: no program can be compiled: %w", o.name, r.refusal())
	}
	for _, n := range b.sizes {
		r.Generated = append(r.Generated, b.measure("", b.generate(mix, n)))
	}
	return r, nil
}

// refusal is why the first program wasn't compiled.
func (r *benchReport) refusal() error {
	for _, p := range r.Programs {
		if p.Plain.Refused != "" {
			return errors.New(p.Plain.Refused)
		}
	}
	return errors.New("they are empty")
}

// maxTries is how many programs are generated until one settles: of a million
// instructions, one in some dozens doesn't.
const maxTries = 10

// generate makes a program that compiles.
func (b *bench) generate(mix *mixed.Mix, n int) (insns []bpf.Insn) {
	c := &stages.Compiler{Options: stages.Options{Cage: b.cage}}
	for try := range uint64(maxTries) {
		insns = mix.Program(b.seed+try, n)
		if c.Compile(bpf.Encode(insns)) == nil {
			break
		}
	}
	return insns
}

// constants returns a program with constants in place of the addresses of
// maps, of values, and of functions.
func (b *bench) constants(src *bpfjit.Source) []bpf.Insn {
	address := uint64(0xffff_8881_0000_0000) // where a kernel has maps
	if b.cage {
		address = abi.HandleBase
	}
	insns := slices.Clone(src.Program.Insns)
	for slot := 0; slot < len(insns)-1; slot++ {
		in := &insns[slot]
		if in.Op != abi.OpLdImm64 {
			continue
		}
		if in.Src() != abi.Imm64Value {
			in.Regs = abi.Registers(in.Dst(), abi.Imm64Value)
			in.Imm, insns[slot+1].Imm = int32(uint32(address)), int32(address>>32)
			address += 0x100
		}
		slot++
	}
	return insns
}

// measure times a program in both ways.
func (b *bench) measure(name string, insns []bpf.Insn) *benchProgram {
	p := &benchProgram{Name: name, Insns: len(insns)}
	for _, blind := range []bool{false, true} {
		what := "plain"
		if blind {
			what = "blinded"
		}
		if name == "" {
			name = "generated"
		}
		b.progress.step("%s, %d instructions, %s", name, len(insns), what)
		r, err := b.time(insns, stages.Options{Cage: b.cage, Blind: blind})
		if err != nil {
			r = &benchResult{Refused: err.Error()}
		}
		if blind {
			p.Blinded = r
		} else {
			p.Plain = r
		}
	}
	return p
}

func (b *bench) time(insns []bpf.Insn, o stages.Options) (*benchResult, error) {
	c := &stages.Compiler{Options: o}
	times, err := c.Time(bpf.Encode(insns), b.limit)
	if err != nil {
		return nil, err
	}
	code := c.Code()
	r := &benchResult{Bytes: len(code.Bytes), Passes: c.Passes(), NS: make(map[string]float64)}
	for s, d := range times {
		if d != 0 {
			r.NS[stages.Stage(s).String()] = float64(d.Nanoseconds()) / float64(len(insns))
		}
	}
	if b.region != nil {
		d, err := stages.Least(func() error {
			im, err := b.region.Publish(code.Bytes, nil, nil)
			if err == nil {
				im.Free()
			}
			return err
		}, b.limit)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		r.Publish = float64(d.Nanoseconds())
	}
	return r, nil
}

// write writes the report as tables, or as JSON.
func (r *benchReport) write(w io.Writer, asJSON bool, svg string) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	var text strings.Builder
	r.tables(&text)
	if svg != "" {
		fmt.Fprintf(&text, "\nplot: %s\n", svg)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
