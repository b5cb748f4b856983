package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/bpfjit/bpfjit"
)

// Exit codes.
const (
	exitOK    = 0
	exitFail  = 1 // the work failed; the reason is on stderr
	exitUsage = 2 // the command line makes no sense
)

// A command is one of bpfjit's subcommands. Its run function has all that it
// works with in its arguments, so that a test can call it like a shell does.
type command struct {
	name, summary string
	run           func(stdin io.Reader, stdout, stderr io.Writer, args []string) int
}

var commands = []command{
	{"run", "run a program of an object on packets or memory", runRun},
	{"dump", "show bytecode beside machine code beside C", runDump},
	{"predict", "tell what a kernel's JIT will do with an object, plain and hardened", runPredict},
	{"diff", "compare with what the running kernel makes of a program", runDiff},
	{"bench", "time how long compiling an object takes, stage by stage", runBench},
	{"vectors", "compile and run test vectors, JSON lines in and out", runVectors},
	{"plugin", "be a plugin of the bpf_conformance suite", runPlugin},
}

func main() {
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr, os.Args[1:]))
}

func run(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(stdout)
		return exitOK
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(stdin, stdout, stderr, args[1:])
		}
	}
	fmt.Fprintf(stderr, "bpfjit: there is no command %q\n", args[0])
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: bpfjit COMMAND [arguments]\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(table, "  %s\t%s\n", c.name, c.summary)
	}
	table.Flush()
	fmt.Fprint(w, "\n\"bpfjit COMMAND -h\" tells more. Without an object, an example is used.\n")
}

// flags returns a set of flags for a subcommand. arguments is what follows
// the flags, text explains it.
func flags(stderr io.Writer, name, arguments, text string) *flag.FlagSet {
	set := flag.NewFlagSet("bpfjit "+name, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprintf(set.Output(), "usage: bpfjit %s [flags] %s\n\n%s\n\nflags:\n", name, arguments, text)
		set.PrintDefaults()
	}
	return set
}

// parse parses args. If the subcommand is to end at once, done is true.
func parse(set *flag.FlagSet, stdout io.Writer, args []string) (code int, done bool) {
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			set.SetOutput(stdout) // what was asked for is no error
			break
		}
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, true
	case err != nil:
		return exitUsage, true
	}
	return exitOK, false
}

// misused reports what is wrong with the arguments of a subcommand, above its usage.
func misused(set *flag.FlagSet, format string, args ...any) int {
	fmt.Fprintf(set.Output(), set.Name()+": "+format+"\n", args...)
	set.Usage()
	return exitUsage
}

// given tells whether a flag is among the arguments: what is empty may come from a
// shell's variable that isn't set.
func given(set *flag.FlagSet, name string) (given bool) {
	set.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// fail reports err for a subcommand, with the instructions around the one at
// fault if there is one.
func fail(stderr io.Writer, name string, err error) int {
	fmt.Fprintf(stderr, "bpfjit %s: %v\n", name, err)
	var ce *bpfjit.CompileError
	if errors.As(err, &ce) {
		_, around, _ := strings.Cut(fmt.Sprintf("%+v", ce), "\n")
		io.WriteString(stderr, around)
	}
	return exitFail
}
