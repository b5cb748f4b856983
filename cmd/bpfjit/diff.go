package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/oracle"
	"github.com/bpfjit/bpfjit/internal/printable"
)

const diffText = `Loads a program into the running kernel, reads back what its verifier gave to
its JIT and what the JIT made of that, and compares with what bpfjit emits for
the same instructions at the same addresses, byte for byte. Needs root.

The exit code is 1 if anything differs. Without an object, the embedded example
is compared.`

func runDiff(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	set := flags(stderr, "diff", "[object]", diffText)
	program := set.String("prog", "", "`name` of the program")
	asJSON := set.Bool("json", false, "one JSON object")
	if exit, done := parse(set, stdout, args); done {
		return exit
	}
	if set.NArg() > 1 {
		return misused(set, "takes one object, not %d", set.NArg())
	}
	d, err := diff(set.Arg(0), *program)
	if err != nil {
		return fail(stderr, "diff", err)
	}
	if *asJSON {
		err = json.NewEncoder(stdout).Encode(d)
	} else {
		err = d.write(stdout)
	}
	switch {
	case err != nil:
		return fail(stderr, "diff", err)
	case !d.Equal:
		return exitFail
	}
	return exitOK
}

// diffResult is the outcome of a comparison.
type diffResult struct {
	Program   string         `json:"program"`
	Equal     bool           `json:"equal"`
	Functions []diffFunction `json:"functions"`
}

type diffFunction struct {
	Name   string `json:"name"`
	Slots  int    `json:"slots"`
	Bytes  int    `json:"bytes"`  // of the kernel
	Passes []int  `json:"passes"` // of bpfjit: the kernel doesn't show its own
	Equal  bool   `json:"equal"`
	// Offset of the first byte that differs, and the slot and instruction that
	// it belongs to.
	Offset int    `json:"offset,omitempty"`
	Slot   int    `json:"slot,omitempty"`
	Insn   string `json:"insn,omitempty"`
}

// diff compares a program of an object, or of the example.
func diff(name, program string) (*diffResult, error) {
	o, err := openObject(name)
	if err != nil {
		return nil, err
	}
	if err := kernel.Available(); err != nil {
		return nil, err
	}
	constants, err := kernel.ReadConstants()
	if err != nil {
		return nil, err
	}
	src, loaded, err := o.kernel(program)
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	funcs, err := loaded.Functions()
	if err != nil {
		return nil, err
	}
	starts, err := bpf.Functions(src.Program)
	if err != nil {
		return nil, err
	}
	d := &diffResult{Program: src.Name, Equal: true}
	for i := range funcs {
		f := &funcs[i]
		row := diffFunction{Name: fmt.Sprintf("function %d", i), Slots: len(f.Insns), Bytes: len(f.Jited), Equal: true}
		if i < len(starts) && src.FuncName(starts[i].Start) != "" {
			row.Name = src.FuncName(starts[i].Start)
		}
		code, err := oracle.Compile(constants, f, funcs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", row.Name, err)
		}
		row.Passes = code.Funcs[0].Passes
		if !slices.Equal(code.Bytes, f.Jited) {
			d.Equal, row.Equal = false, false
			for row.Offset < min(len(code.Bytes), len(f.Jited)) && code.Bytes[row.Offset] == f.Jited[row.Offset] {
				row.Offset++
			}
			if row.Slot = code.Slot(uint32(row.Offset)); row.Slot >= 0 {
				row.Insn = bpf.Text(f.Insns[row.Slot])
			}
		}
		d.Functions = append(d.Functions, row)
	}
	return d, nil
}

// kernel loads a program of the object into the running kernel, with maps of
// its own.
func (o *object) kernel(program string) (*bpfjit.Source, *kernel.Program, error) {
	spec, err := bpfjit.ReadSpec(bytes.NewReader(o.data))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.name, err)
	}
	src, err := bpfjit.SourceOf(spec, program)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.name, err)
	}
	insns := slices.Clone(src.Program.Insns)
	maps := make(map[string]*kernel.Map)
	defer func() {
		for _, m := range maps {
			m.Close() // the program keeps what it needs
		}
	}()
	for _, ref := range src.Maps {
		m := maps[ref.Name]
		if m == nil {
			s := spec.Maps[ref.Name]
			if s == nil {
				return nil, nil, fmt.Errorf("the object has no map %q", ref.Name)
			}
			m, err = kernel.NewMap(kernel.MapSpec{Type: kernel.MapType(s.Type), KeySize: s.KeySize, ValueSize: s.ValueSize,
				MaxEntries: s.MaxEntries, Flags: s.Flags})
			if err != nil {
				return nil, nil, fmt.Errorf("map %q: %w", ref.Name, err)
			}
			maps[ref.Name] = m
			for _, kv := range s.Contents {
				if value, ok := kv.Value.([]byte); ok && s.KeySize == 4 && len(s.Contents) == 1 {
					if err := m.Update(make([]byte, 4), value); err != nil {
						return nil, nil, fmt.Errorf("map %q: %w", ref.Name, err)
					}
				}
			}
		}
		insns[ref.Slot].Imm = int32(m.FD())
	}
	loaded, err := kernel.Load(&kernel.Spec{Type: kernel.Type(src.Type), Insns: insns, License: src.License, Debug: true})
	var le *kernel.LoadError
	if errors.As(err, &le) {
		return nil, nil, fmt.Errorf("%s: the kernel doesn't take it: %w", printable.Name(src.Name), err)
	}
	return src, loaded, err
}

func (d *diffResult) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FUNCTION\tSLOTS\tBYTES\tPASSES\tRESULT")
	size := 0
	for _, f := range d.Functions {
		result := "equal"
		switch {
		case f.Equal:
			size += f.Bytes
		case f.Insn == "":
			result = fmt.Sprintf("differs at offset %#x", f.Offset)
		default:
			result = fmt.Sprintf("differs at offset %#x, slot %d: %s", f.Offset, f.Slot, f.Insn)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\n", f.Name, f.Slots, f.Bytes, len(f.Passes), result)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %d bytes are the kernel's own\n", printable.Name(d.Program), size)
	return err
}
