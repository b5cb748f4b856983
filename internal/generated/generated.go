package generated

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// List is the file that names every generated file: slash-separated paths from
// the root of the repository, one a line, sorted. Empty lines and lines that
// begin with # don't count.
const List = "gen/outputs.txt"

// header marks generated files, as 'go help generate' wants it, in the comment
// styles of Go, assembly, Markdown and plain text.
var header = regexp.MustCompile(`(?m)^(//|#|<!--) Code generated .* DO NOT EDIT\.( -->)?$`)

// marked reports whether the file begins with a header. It may stand behind a
// few other lines, but not in the middle of a file that only quotes it.
func marked(text []byte) bool {
	head := text
	for range 3 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		if header.Match(line) {
			return true
		}
		head = rest
	}
	return false
}

// Outputs reads [List] from a tree. A tree without the file generates nothing.
func Outputs(tree fs.FS) ([]string, error) {
	text, err := fs.ReadFile(tree, List)
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var names []string
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		name := strings.TrimSpace(line)
		if name == "" || name[0] == '#' {
			continue
		}
		if !fs.ValidPath(name) || path.Clean(name) != name {
			return nil, fmt.Errorf("%s:%d: %q is not a path from the root", List, n, name)
		}
		if len(names) > 0 && names[len(names)-1] >= name {
			return nil, fmt.Errorf("%s:%d: %s must stand before %s, once", List, n, name, names[len(names)-1])
		}
		names = append(names, name)
	}
	return names, nil
}

// Verify copies tree to the empty directory dir, but for what is generated,
// calls generate there, and returns a line for each way in which the result
// isn't the tree again. An error means that the comparison was not made.
func Verify(tree fs.FS, dir string, generate func(dir string) error) ([]string, error) {
	outputs, err := Outputs(tree)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for _, name := range outputs {
		listed[name] = true
	}
	before, err := read(tree)
	if err != nil {
		return nil, err
	}
	problems := marks(before, listed)

	kept := maps.Clone(before)
	maps.DeleteFunc(kept, func(name string, text []byte) bool { return listed[name] || marked(text) })
	if err := write(dir, kept); err != nil {
		return nil, err
	}
	if err := generate(dir); err != nil {
		return nil, err
	}
	after, err := read(os.DirFS(dir))
	if err != nil {
		return nil, err
	}

	say := func(name, format string, args ...any) {
		problems = append(problems, name+": "+fmt.Sprintf(format, args...))
	}
	for name, text := range after {
		old, existed := before[name]
		switch {
		case listed[name] && !existed:
			say(name, "is missing; run 'go generate ./...'")
		case listed[name] && !bytes.Equal(text, old):
			say(name, "is out of date; run 'go generate ./...'%s", differ(old, text))
		case !listed[name] && !bytes.Equal(text, kept[name]):
			say(name, "is written by a generator, but isn't in %s", List)
		}
	}
	for name := range listed {
		if _, ok := after[name]; !ok {
			say(name, "is in %s, but no generator writes it", List)
		}
	}
	for name := range kept {
		if _, ok := after[name]; !ok {
			say(name, "is deleted by a generator")
		}
	}
	slices.Sort(problems)
	return problems, nil
}

// marks compares the headers of the files with the list.
func marks(files map[string][]byte, listed map[string]bool) (problems []string) {
	for name, text := range files {
		ext := path.Ext(name)
		switch {
		case marked(text) && !listed[name]:
			problems = append(problems, fmt.Sprintf("%s: is marked as generated, but isn't in %s", name, List))
		case !marked(text) && listed[name] && (ext == ".go" || ext == ".s" || ext == ".md"):
			problems = append(problems, fmt.Sprintf("%s: is in %s, but not marked as generated", name, List))
		case !marked(text) && ext == ".s":
			problems = append(problems, name+": is assembly that no generator wrote")
		}
	}
	return problems
}

// differ names the first line at which two texts differ.
func differ(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("\n  line %d is        %s\n  and should be  %s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("\n  it has %d lines and should have %d", len(x), len(y))
}

// read returns all files of a tree but those of the version control.
func read(tree fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" { // a file in a second work tree
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			files[name], err = fs.ReadFile(tree, name)
		}
		return err
	})
	return files, err
}

// write makes the files below dir, in order of their names so that an error is
// always the same one.
func write(dir string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(file, files[name], 0o666); err != nil {
			return err
		}
	}
	return nil
}
