package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

const dumpText = `Shows a program beside the machine code it becomes, under its lines of C.

An object with several programs needs -prog. Without an object, the embedded
example is shown. Profiles: cage is what bpfjit runs; kernel is what Linux 6.18
emits for these instructions, v5.13 the form that they had in Linux 5.13. Of what
a kernel's verifier rewrites before, and of its addresses, these two know
nothing; "bpfjit diff" does.

With -gadgets it shows instead what the author's constants are to a processor
that is sent into the midst of them (JIT spraying): the instructions at offsets
+1 to +4 of the code, before and after blinding. Blinding hides no displacements
of memory accesses, shift counts or distances of jumps.`

// dump holds the flags of the subcommand.
type dump struct {
	profile string
	raw     bool
	bytes   bool
	json    bool
	gadgets bool
	seed    uint64
}

func runDump(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	var d dump
	set := flags(stderr, "dump", "[object]", dumpText)
	program := set.String("prog", "", "`name` of the program")
	code := set.String("code", "", "instead of an object: instructions in `hex`, or @file")
	set.StringVar(&d.profile, "profile", "cage", "cage, kernel or v5.13")
	set.BoolVar(&d.raw, "raw", false, "the form of the kernel's bpf_jit_enable=2")
	set.BoolVar(&d.bytes, "bytes", true, "show bytes")
	set.BoolVar(&d.json, "json", false, "JSON: in the cage one object for the program, else one a line for each function")
	set.BoolVar(&d.gadgets, "gadgets", false, "show constants as the machine code that they are from within")
	set.Uint64Var(&d.seed, "seed", 0, "with -gadgets: of the random numbers; 0: others each time")
	if exit, done := parse(set, stdout, args); done {
		return exit
	}
	fromCode := given(set, "code")
	switch {
	case set.NArg() > 1:
		return misused(set, "takes one object, not %d", set.NArg())
	case set.NArg() == 1 && fromCode:
		return misused(set, "takes an object or -code, not both")
	case d.raw && (d.json || d.gadgets):
		return misused(set, "-raw goes with neither -json nor -gadgets")
	case d.profile != "cage" && kernelProfiles[d.profile] == nil:
		return misused(set, "there is no profile %q (cage, kernel, v5.13)", d.profile)
	}
	err := func() error {
		if fromCode {
			return d.code(stdout, *code)
		}
		o, err := openObject(set.Arg(0))
		if err != nil {
			return err
		}
		return d.object(stdout, o, *program)
	}()
	if err != nil {
		return fail(stderr, "dump", err)
	}
	return exitOK
}

// code dumps instructions that came as bytes.
func (d *dump) code(w io.Writer, value string) error {
	b, err := parseMemory(value)
	if err != nil {
		return err
	}
	insns, err := bpf.Decode(b)
	if err != nil {
		return err
	}
	src := &bpfjit.Source{Name: "program", Program: &bpf.Program{Insns: insns}}
	if d.profile != "cage" {
		return d.kernel(w, src)
	}
	if d.gadgets {
		return d.gadgetsCage(w, func(opts *bpfjit.Options) (*bpfjit.Program, error) { return bpfjit.CompileSource(src, opts) })
	}
	prog, err := bpfjit.CompileSource(src, d.options(w))
	if err != nil {
		return err
	}
	defer prog.Close()
	return d.cage(w, prog)
}

// object dumps a program of an object.
func (d *dump) object(w io.Writer, o *object, program string) error {
	if d.profile != "cage" {
		src, err := o.source(program)
		if err != nil {
			return err
		}
		return d.kernel(w, src)
	}
	if d.gadgets {
		return d.gadgetsCage(w, func(opts *bpfjit.Options) (*bpfjit.Program, error) { return o.load(program, opts) })
	}
	prog, err := o.load(program, d.options(w))
	if err != nil {
		return err
	}
	defer prog.Close()
	return d.cage(w, prog)
}

func (d *dump) options(w io.Writer) *bpfjit.Options {
	var opts bpfjit.Options
	if d.raw {
		opts.Dump = w
		opts.Engine = bpfjit.EngineJIT
	}
	return &opts
}

// cage dumps the code that bpfjit runs.
func (d *dump) cage(w io.Writer, prog *bpfjit.Program) error {
	info := prog.Info()
	switch {
	case d.raw:
		return nil // Options.Dump has shown it
	case d.json:
		l := prog.Listing()
		return d.encode(w, prog.Name(), l.Program, l.Code)
	}
	fmt.Fprintf(w, "; %s: %s\n", prog.Name(), summary(&info))
	l := prog.Listing()
	l.Bytes = d.bytes
	return l.Write(w)
}

// kernelProfiles are those of kernels, by the names that dump has for them.
var kernelProfiles = map[string]*jit.Profile{"kernel": &jit.Linux618, "v5.13": &jit.Linux513}

// kernel dumps the code that a kernel would run.
func (d *dump) kernel(w io.Writer, src *bpfjit.Source) error {
	profile := kernelProfiles[d.profile]
	functions, err := src.Translate()
	if err != nil {
		return err
	}
	if d.gadgets {
		return d.gadgetsKernel(w, src, functions, profile)
	}
	for i := range functions {
		f := &functions[i]
		code, err := jit.Compile(f.Program, profile, &f.Function)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		switch {
		case d.raw:
			err = bpfjit.WriteRaw(w, len(f.Program.Insns), 0, code.Funcs[0].Passes, code.Bytes)
		case d.json:
			err = d.encode(w, f.Name, f.Program, code)
		default:
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "; %s: %s, %d slots, %d bytes in %d passes, stack of %d bytes\n", f.Name, d.profile,
				len(f.Program.Insns), len(code.Bytes), len(code.Funcs[0].Passes), f.Function.StackDepth)
			l := bpfjit.Listing{Source: src, Program: f.Program, Code: code, Bytes: d.bytes}
			err = l.Write(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dumpJSON is what -json writes for a function, or for all of a caged program.
type dumpJSON struct {
	Name    string   `json:"name"`
	Profile string   `json:"profile"`
	Insns   string   `json:"insns_hex"` // what was compiled
	Source  []int    `json:"source"`    // slot in the object, of each slot
	Code    string   `json:"code_hex"`
	Ends    []uint32 `json:"ends"` // of the code of each slot
	Passes  [][]int  `json:"passes"`
}

func (d *dump) encode(w io.Writer, name string, p *bpf.Program, code *jit.Code) error {
	if code == nil {
		return errors.New("there is no machine code here, see \"bpfjit dump\" without -json")
	}
	out := dumpJSON{Name: name, Profile: d.profile, Insns: hex.EncodeToString(bpf.Encode(p.Insns)),
		Code: hex.EncodeToString(code.Bytes), Ends: code.Ends}
	for slot := range p.Insns {
		out.Source = append(out.Source, p.Source(slot))
	}
	for _, f := range code.Funcs {
		out.Passes = append(out.Passes, f.Passes)
	}
	return json.NewEncoder(w).Encode(out)
}

// summary tells in a line what became of a program.
func summary(info *bpfjit.Info) string {
	if info.Engine != bpfjit.EngineJIT {
		text := fmt.Sprintf("interpreted, %d slots", info.Insns)
		if info.Reason != nil {
			text += fmt.Sprintf(" (%v)", info.Reason)
		}
		return text
	}
	return fmt.Sprintf("compiled, %d slots, %d lowered, %d bytes of code in %d passes, image of %d bytes",
		info.Insns, info.Lowered, info.Code, len(info.Passes), info.Image)
}
