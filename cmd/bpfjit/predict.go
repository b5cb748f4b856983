package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/jit"
)

const predictText = `Tells what the JIT of Linux 6.18 makes of the programs of objects, and whether
they still load once net.core.bpf_jit_harden=2 has hidden their constants. It
needs neither a kernel nor root, on any platform. Without an object, the
embedded example is looked at.

The kernel's verifier rewrites programs before its JIT sees them, and finds out
how much stack they use. This can't be known here, so all sizes are estimates;
-live asks the running kernel (Linux, root) for the rewritten instructions, and
compares with the code that it made of them.

The exit code is 0 if everything loads, 1 if something wouldn't or if that can't
be told, 2 if the command line makes no sense.`

// predictor holds the flags of the subcommand and what it works with.
type predictor struct {
	program   string
	seeds     int
	seed      uint64
	plain     bool
	live      bool
	optmemMax sysctl
	jitLimit  sysctl

	profile  *jit.Profile // of the kernel that is foreseen, unless it is asked
	progress progress
}

func runPredict(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	p := predictor{
		optmemMax: sysctl{path: "/proc/sys/net/core/optmem_max"},
		jitLimit:  sysctl{path: "/proc/sys/net/core/bpf_jit_limit"},
		profile:   &jit.Linux618,
	}
	set := flags(stderr, "predict", "[object...]", predictText)
	set.StringVar(&p.program, "prog", "", "only the program of this `name`")
	set.IntVar(&p.seeds, "seeds", 8, "how many times constants are hidden, each time by other random numbers")
	set.Uint64Var(&p.seed, "seed", 1, "the first of the seeds")
	set.BoolVar(&p.plain, "plain", false, "as with bpf_jit_harden=0 only: hide no constants")
	set.BoolVar(&p.live, "live", false, "load the programs into the running kernel and compare")
	set.Var(&p.optmemMax, "optmem_max", "can socket filters be attached with this net.core.optmem_max, in `bytes`, or \"here\"?")
	set.Var(&p.jitLimit, "bpf_jit_limit", "do the images stay below this net.core.bpf_jit_limit, in `bytes`, or \"here\"?")
	asJSON := set.Bool("json", false, "one JSON object a line for each object")
	if exit, done := parse(set, stdout, args); done {
		return exit
	}
	switch {
	case p.seeds < 1:
		return misused(set, "-seeds is %d, less than 1", p.seeds)
	case p.plain && given(set, "seeds"):
		return misused(set, "-plain hides no constants: there is nothing for -seeds")
	}
	p.progress.start(stderr)
	if p.live {
		if err := kernel.Available(); err != nil {
			return fail(stderr, "predict", err)
		}
	}
	objects := set.Args()
	if len(objects) == 0 {
		objects = []string{""}
	}
	exit := exitOK
	for i, name := range objects {
		report, err := p.object(name)
		p.progress.clear()
		switch {
		case err != nil:
		case *asJSON:
			enc := json.NewEncoder(stdout)
			enc.SetEscapeHTML(false)
			err = enc.Encode(report)
		default:
			if i > 0 {
				fmt.Fprintln(stdout)
			}
			err = report.write(stdout)
		}
		if err != nil {
			exit = fail(stderr, "predict", err)
		} else if !report.Loads {
			exit = exitFail
		}
	}
	return exit
}

// object looks at the programs of an object.
func (p *predictor) object(name string) (*predictReport, error) {
	o, err := openObject(name)
	if err != nil {
		return nil, err
	}
	spec, err := bpfjit.ReadSpec(bytes.NewReader(o.data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	names := slices.Sorted(maps.Keys(spec.Programs))
	if p.program != "" {
		if _, err := bpfjit.SourceOf(spec, p.program); spec.Programs[p.program] == nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
		names = []string{p.program}
	}
	r := &predictReport{Object: o.name, Live: p.live}
	for i, name := range names {
		p.progress.label = fmt.Sprintf("%s, program %d of %d", o.name, i+1, len(names))
		prog := p.predict(o, spec.Programs[name].Type.String(), name, func() (*bpfjit.Source, error) {
			return bpfjit.SourceOf(spec, name)
		})
		r.Programs = append(r.Programs, prog)
	}
	r.finish(p)
	return r, nil
}

// sysctl is the value of a flag: bytes, or what this machine has set. The
// zero value is "not asked".
type sysctl struct {
	path  string
	asked bool
	value int
}

func (s *sysctl) String() string {
	if !s.asked {
		return ""
	}
	return strconv.Itoa(s.value)
}

func (s *sysctl) Set(text string) error {
	if text == "here" {
		b, err := os.ReadFile(s.path)
		if err != nil {
			return err
		}
		text = strings.TrimSpace(string(b))
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no number of bytes", text)
	}
	s.asked, s.value = true, v
	return nil
}
