package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"

	"github.com/bpfjit/bpfjit"
)

// The example: what commands work on when no object is named.
var (
	//go:embed example/filter.bpf.o
	exampleObject []byte
	//go:embed example/packets.hex
	examplePackets string
)

// object is an object file that was read, or the example.
type object struct {
	name string
	data []byte
}

// openObject reads an object; an empty name is the example.
func openObject(name string) (*object, error) {
	if name == "" {
		return &object{"the embedded example", exampleObject}, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s: is empty", name)
	}
	if !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%s: is no ELF file", name)
	}
	return &object{name, data}, nil
}

// source returns a program of the object; an empty name is its only one.
func (o *object) source(program string) (*bpfjit.Source, error) {
	spec, err := bpfjit.ReadSpec(bytes.NewReader(o.data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	src, err := bpfjit.SourceOf(spec, program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	return src, nil
}

// load compiles a program of the object, with maps of its own.
func (o *object) load(program string, opts *bpfjit.Options) (*bpfjit.Program, error) {
	spec, err := bpfjit.ReadSpec(bytes.NewReader(o.data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	prog, err := bpfjit.Load(spec, program, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	return prog, nil
}
