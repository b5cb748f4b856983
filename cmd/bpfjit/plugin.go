package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/bpfjit/bpfjit"
)

const pluginText = `The plugin protocol of the public bpf_conformance runner: memory comes as hex
bytes in the first argument, blanks allowed, or not at all; the program comes
as hex bytes on standard input. Standard output is r0 in hex. Options that it
doesn't know are ignored.`

func runPlugin(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	opts := bpfjit.Options{Name: "plugin"}
	var memory []string
	for _, a := range args {
		switch {
		case a == "--interp":
			opts.Engine = bpfjit.EngineInterpreter
		case a == "--blind":
			opts.Blinding = true
		case a == "-h", a == "-help", a == "--help":
			fmt.Fprintf(stdout, "usage: bpfjit plugin [memory] [--interp] [--blind]\n\n%s\n", pluginText)
			return exitOK
		case strings.HasPrefix(a, "-"):
		default:
			memory = append(memory, a)
		}
	}
	r0, err := conform(stdin, strings.Join(memory, " "), &opts)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFail
	}
	if _, err := fmt.Fprintf(stdout, "%x\n", r0); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFail
	}
	return exitOK
}

// conform runs the program that comes in hex.
func conform(program io.Reader, memory string, opts *bpfjit.Options) (uint64, error) {
	text, err := io.ReadAll(program)
	if err != nil {
		return 0, err
	}
	code, err := unhex(string(text))
	if err != nil {
		return 0, fmt.Errorf("program: %w", err)
	}
	mem, err := unhex(memory)
	if err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	prog, err := bpfjit.CompileBytes(code, opts)
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	return prog.Run(mem)
}

// unhex reads bytes in hex with blanks anywhere.
func unhex(text string) ([]byte, error) {
	return hex.DecodeString(strings.Join(strings.Fields(text), ""))
}
