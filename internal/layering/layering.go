package layering

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Rule is one line of the policy.
type Rule struct {
	Package string   // directory, or "dir/..."
	Ours    []string // packages of this repository
	Others  []string // import path prefixes of other modules
	Marks   []string
}

var marks = []string{"pure", "unsafe", "pins", "testing", "cgo"}

func (r *Rule) marked(m string) bool { return slices.Contains(r.Marks, m) }

// ParsePolicy reads a table in the form of [Policy]. Every line may name only
// packages that stand above it, so the table itself cannot hold a cycle.
func ParsePolicy(table string) ([]Rule, error) {
	var rules []Rule
	known := []string{"*"}
	for line := range strings.Lines(table) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			return nil, fmt.Errorf("policy: %d columns instead of 4: %q", len(cells), line)
		}
		r := Rule{strings.TrimSpace(cells[0]), strings.Fields(cells[1]), strings.Fields(cells[2]), strings.Fields(cells[3])}
		if r.Package == "package" {
			continue // the heading
		}
		if slices.Contains(known, r.Package) {
			return nil, fmt.Errorf("policy: two rules for %s", r.Package)
		}
		for _, o := range r.Ours {
			if o != r.Package && !slices.Contains(known, o) {
				return nil, fmt.Errorf("policy: %s may import %s, which is not above it", r.Package, o)
			}
		}
		for _, m := range r.Marks {
			if !slices.Contains(marks, m) {
				return nil, fmt.Errorf("policy: %s has the unknown mark %q", r.Package, m)
			}
		}
		known = append(known, r.Package)
		rules = append(rules, r)
	}
	return rules, nil
}

// Problem is a place where the sources break the policy.
type Problem struct {
	File string // slash-separated, or a directory
	Line int    // 0 where the file as a whole is meant
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Check reads every Go file of the tree and returns what breaks the rules,
// ordered by file. An error means that the tree could not be read.
func Check(tree fs.FS, rules []Rule) ([]Problem, error) {
	c := checker{tree: tree, rules: rules, packages: map[string]*pkg{}}
	if err := fs.WalkDir(tree, ".", c.visit); err != nil {
		return nil, err
	}
	for dir, p := range c.packages {
		c.comments(dir, p)
	}
	slices.SortFunc(c.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return c.problems, nil
}

type checker struct {
	tree     fs.FS
	rules    []Rule
	packages map[string]*pkg // by directory
	problems []Problem
}

// pkg gathers what concerns a package rather than one of its files.
type pkg struct {
	name      string // without _test
	docGo     bool
	commented []string // files with a package comment
	comment   string
}

func (c *checker) report(file string, line int, format string, args ...any) {
	c.problems = append(c.problems, Problem{file, line, fmt.Sprintf(format, args...)})
}

func (c *checker) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if d.IsDir() {
		// The go command ignores these directories as well.
		if b := d.Name(); name != "." && (b == "testdata" || b[0] == '.' || b[0] == '_') {
			return fs.SkipDir
		}
		return nil
	}
	dir := path.Dir(name)
	if d.Name() == "go.mod" && dir != "." && !slices.Contains(nestedModules, dir) {
		c.report(name, 0, "no module is expected here")
	}
	if path.Ext(name) != ".go" {
		return nil
	}
	src, err := fs.ReadFile(c.tree, name)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		c.report(name, 0, "does not parse: %v", err)
		return nil
	}
	if n := bytes.Count(src, []byte("\n")); n > MaxLines && !ast.IsGenerated(f) {
		c.report(name, 0, "has %d lines, more than %d", n, MaxLines)
	}
	for _, g := range f.Comments {
		for _, l := range g.List {
			if strings.HasPrefix(l.Text, "//go:linkname") {
				c.report(name, set.Position(l.Pos()).Line, "uses go:linkname")
			}
		}
	}
	c.collect(dir, name, f)
	rule := c.rule(dir)
	if rule == nil {
		c.report(name, 0, "package %s has no rule", dir)
		return nil
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if why := forbidden(rule, imp, strings.HasSuffix(name, "_test.go")); why != "" {
			c.report(name, set.Position(spec.Pos()).Line, "%s must not import %s: %s", dir, imp, why)
		}
	}
	return nil
}

// rule returns the rule of a directory, nil if there is none. A line of its
// own goes before a pattern.
func (c *checker) rule(dir string) *Rule {
	var found *Rule
	for i := range c.rules {
		if r := &c.rules[i]; r.Package == dir {
			return r
		} else if matches(r.Package, dir) {
			found = r
		}
	}
	return found
}

// matches reports whether a package of this repository is meant by the
// pattern of a rule.
func matches(pattern, pkg string) bool {
	if pattern == "*" {
		return !slices.ContainsFunc(nestedModules, func(m string) bool { return below(pkg, m) }) && !below(pkg, "cmd")
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return below(pkg, tree)
	}
	return pkg == pattern
}

// below reports whether an import path is root or below it.
func below(imp, root string) bool {
	return imp == root || strings.HasPrefix(imp, root+"/")
}

// forbidden says why a file that is subject to the rule must not import imp,
// or returns "".
func forbidden(r *Rule, imp string, test bool) string {
	is := func(root string) bool { return below(imp, root) }
	match := func(pattern string) bool { return matches(pattern, ours(imp)) }
	switch {
	case imp == "C":
		if !r.marked("cgo") {
			return "no cgo"
		}
	case imp == "unsafe":
		if !r.marked("unsafe") && !(test && r.marked("pins")) {
			return "not marked unsafe"
		}
	case ours(imp) != "":
		if !slices.ContainsFunc(r.Ours, match) && !(test && matches("*", ours(imp))) {
			return "not among its imports of ours"
		}
	case strings.Contains(strings.Split(imp, "/")[0], "."):
		if !slices.ContainsFunc(r.Others, is) && !(test && slices.ContainsFunc(testModules, is)) {
			return "not among its imports of others"
		}
	case test:
		// The rest of the standard library is free for tests.
	case is("testing"):
		if !r.marked("testing") {
			return "for tests only"
		}
	case r.marked("pure") && slices.ContainsFunc(impure, is):
		return "marked pure"
	}
	return ""
}

// ours returns the directory that an import path of this repository means,
// "" for other paths.
func ours(imp string) string {
	if imp == Module {
		return "."
	}
	dir, ok := strings.CutPrefix(imp, Module+"/")
	if !ok {
		return ""
	}
	return dir
}

// collect remembers what the checks of whole packages need.
func (c *checker) collect(dir, name string, f *ast.File) {
	p := c.packages[dir]
	if p == nil {
		p = &pkg{name: strings.TrimSuffix(f.Name.Name, "_test")}
		c.packages[dir] = p
	}
	if n := strings.TrimSuffix(f.Name.Name, "_test"); n != p.name {
		c.report(name, 0, "package %s beside package %s", n, p.name)
	}
	if strings.HasSuffix(name, "_test.go") {
		return
	}
	if path.Base(name) == "doc.go" {
		p.docGo = true
	}
	if f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "" {
		p.commented = append(p.commented, name)
		p.comment = f.Doc.Text()
	}
}

// comments checks that a package has one package comment in the usual form. In
// the root module it stands in doc.go; generators are single files.
func (c *checker) comments(dir string, p *pkg) {
	if !p.docGo && !below(dir, "gen") {
		c.report(dir, 0, "has no doc.go")
	}
	switch len(p.commented) {
	case 0:
		c.report(dir, 0, "has no package comment")
		return
	case 1:
	default:
		c.report(dir, 0, "has package comments in %s", strings.Join(p.commented, " and "))
	}
	if p.name != "main" && !strings.HasPrefix(p.comment, "Package "+p.name+" ") {
		c.report(dir, 0, "the package comment does not begin with %q", "Package "+p.name)
	}
}
