// Command objects builds the BPF objects of this repository from their C
// sources with clang-19: every *.bpf.c, and the kernels of testdata/kernels
// twice, as plain functions and as XDP programs.
//
// The objects are committed, so that nobody needs clang to use or to test the
// project. Where clang-19 is missing the command says so and does nothing.
// With -check it builds into a temporary directory and reports what differs
// from the committed objects.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	compiler = "clang-19"
	strip    = "llvm-strip-19"
)

// flags are what every object is built with. The source directory stays out
// of the object; strip removes DWARF and leaves BTF with its lines.
var flags = []string{
	"-target", "bpfel", "-O2", "-g", "-fdebug-compilation-dir=.",
	"-Wall", "-Werror", "-Wno-unused-variable",
}

// An object is one file to build.
type object struct {
	dir, source, output string
	flags               []string
}

// ownFlags finds a comment such as "/* clang: -mcpu=v4 */" in a source.
var ownFlags = regexp.MustCompile(`(?m)^/\* clang: (.*) \*/$`)

func main() {
	err := run(os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "objects:", err)
		os.Exit(1)
	}
}

func run(stdout io.Writer, args []string) error {
	set := flag.NewFlagSet("objects", flag.ContinueOnError)
	root := set.String("root", "..", "`directory` of the repository")
	check := set.Bool("check", false, "compare with the committed objects, change nothing")
	if err := set.Parse(args); err != nil {
		return err
	}
	for _, tool := range []string{compiler, strip} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(stdout, "objects: no %s here, the committed objects stay as they are\n", tool)
			return nil
		}
	}
	objects, err := find(*root)
	if err != nil {
		return err
	}
	var stale []error
	for _, o := range objects {
		built, err := o.build()
		if err != nil {
			return err
		}
		path := filepath.Join(o.dir, o.output)
		old, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(old, built):
		case *check:
			stale = append(stale, fmt.Errorf("%s is not up to date, run go generate", path))
		default:
			if err := os.WriteFile(path, built, 0o644); err != nil {
				return err
			}
			fmt.Fprintln(stdout, "objects: wrote", path)
		}
	}
	return errors.Join(stale...)
}

// find lists the objects below root.
func find(root string) ([]object, error) {
	var list []object
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dir, name := filepath.Split(path)
		kernel := filepath.Base(filepath.Clean(dir)) == "kernels" && strings.HasPrefix(name, "k")
		switch {
		case d.IsDir() && name == ".git":
			return fs.SkipDir
		case strings.HasSuffix(name, ".bpf.c"):
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			own := []string{"-mcpu=v3"}
			if m := ownFlags.FindSubmatch(source); m != nil {
				own = strings.Fields(string(m[1]))
			}
			list = append(list, object{dir, name, strings.TrimSuffix(name, ".c") + ".o", own})
		case kernel && strings.HasSuffix(name, ".c"):
			base := strings.TrimSuffix(name, ".c")
			list = append(list,
				object{dir, name, base + ".o", []string{"-mcpu=v3"}},
				object{dir, name, base + ".xdp.o", []string{"-mcpu=v3", "-DKERNEL"}})
		}
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("no BPF sources below %s", root)
	}
	return list, err
}

// build compiles the object in its own directory, so that no other path gets
// into it, and returns its bytes.
func (o object) build() ([]byte, error) {
	tmp, err := os.MkdirTemp("", "objects")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, o.output)

	args := append(append([]string{}, flags...), o.flags...)
	for _, cmd := range []*exec.Cmd{
		exec.Command(compiler, append(args, "-c", o.source, "-o", out)...),
		exec.Command(strip, "-g", out),
	} {
		cmd.Dir = o.dir
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", o.source, err, msg)
		}
	}
	return os.ReadFile(out)
}
