package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bpfjit/bpfjit/gen/describe"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("rows", flag.ContinueOnError)
	bpf := flags.String("bpf", "bpf.txt", "forms to read")
	x86 := flags.String("x86", "x86.txt", "rows to read")
	out := flags.String("out", "", "Go file to write")
	vectors := flags.String("vectors", "", "test vectors to write")
	docs := flags.String("docs", "", "documentation to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	d, err := Read(*bpf, *x86)
	if err != nil {
		return err
	}
	t, err := Build(d)
	if err != nil {
		return err
	}
	proved, err := t.Prove()
	if err != nil {
		return err
	}
	fmt.Printf("rows proved = %d of %d rows\n", proved, len(t.Rows))
	command := "rows " + strings.Join(args, " ")
	for _, output := range []struct {
		path  string
		write func(command string) ([]byte, error)
	}{{*out, t.Source}, {*vectors, t.Vectors}, {*docs, t.Docs}} {
		if output.path == "" {
			continue
		}
		b, err := output.write(command)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(output.path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(output.path, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// Description is both files, read.
type Description struct {
	Forms []*describe.Form
	Rows  []describe.Row
}

// Read reads both files.
func Read(bpf, x86 string) (*Description, error) {
	fb, err := os.ReadFile(bpf)
	if err != nil {
		return nil, err
	}
	rb, err := os.ReadFile(x86)
	if err != nil {
		return nil, err
	}
	var d Description
	if d.Forms, err = describe.ParseForms(bpf, bytes.NewReader(fb)); err != nil {
		return nil, err
	}
	d.Rows, err = describe.ReadRows(x86, bytes.NewReader(rb))
	return &d, err
}
