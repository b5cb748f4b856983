package layering

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestPolicy holds the repository to its policy.
func TestPolicy(t *testing.T) {
	tree := os.DirFS("../..")
	if _, err := fs.Stat(tree, "go.mod"); err != nil {
		t.Fatalf("this is not the root of the module: %v", err)
	}
	rules, err := ParsePolicy(Policy)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := Check(tree, rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// TestCheck breaks each rule in a small tree, and shows beside it what is
// still allowed.
func TestCheck(t *testing.T) {
	const ok = "package p\n"
	lines := func(n int) string { return "package p\n" + strings.Repeat("//\n", n-1) }
	for _, test := range []struct {
		name  string
		files map[string]string // added to the good tree
		want  []string
	}{
		{name: "the good tree"},

		{"room below", map[string]string{"bpf/a.go": imports("bpf", Module+"/abi", Module+"/tables")}, nil},
		{"room above", map[string]string{"abi/a.go": imports("abi", Module+"/bpf")},
			[]string{"abi/a.go:2: abi must not import " + Module + "/bpf: not among its imports of ours"}},
		{"the other wing", map[string]string{"jit/doc.go": "// Package jit is.\n" + imports("jit", Module+"/image")},
			[]string{"jit/doc.go:3: jit must not import " + Module + "/image: not among its imports of ours"}},
		{"another platform", map[string]string{"abi/a_windows.go": imports("abi", Module+"/bpf")},
			[]string{"abi/a_windows.go:2: abi must not import " + Module + "/bpf: not among its imports of ours"}},
		{"another build tag", map[string]string{"abi/a.go": "//go:build purego\n\n" + imports("abi", Module+"/bpf")},
			[]string{"abi/a.go:4: abi must not import " + Module + "/bpf: not among its imports of ours"}},
		{"the root", map[string]string{"bpf/a.go": imports("bpf", Module)},
			[]string{"bpf/a.go:2: bpf must not import " + Module + ": not among its imports of ours"}},
		{"a name with the same beginning", map[string]string{"bpf/a.go": imports("bpf", Module+"/abix")},
			[]string{"bpf/a.go:2: bpf must not import " + Module + "/abix: not among its imports of ours"}},
		{"a test looks across", map[string]string{"abi/a_test.go": imports("abi_test", Module+"/bpf", Module+"/image")}, nil},
		{"a test looks into gen", map[string]string{"abi/a_test.go": imports("abi_test", Module+"/gen/table")},
			[]string{"abi/a_test.go:2: abi must not import " + Module + "/gen/table: not among its imports of ours"}},
		{"no rule", map[string]string{"attic/doc.go": "// Package attic is.\npackage attic\n"},
			[]string{"attic/doc.go: package attic has no rule"}},

		{"own module", map[string]string{"image/a.go": imports("image", "golang.org/x/sys/unix")}, nil},
		{"foreign module", map[string]string{"abi/a.go": imports("abi", "golang.org/x/sys/unix")},
			[]string{"abi/a.go:2: abi must not import golang.org/x/sys/unix: not among its imports of others"}},
		{"foreign module in a test", map[string]string{"abi/a_test.go": imports("abi", "golang.org/x/sys/unix")}, nil},
		{"unknown module in a test", map[string]string{"abi/a_test.go": imports("abi", "example.org/assert")},
			[]string{"abi/a_test.go:2: abi must not import example.org/assert: not among its imports of others"}},
		{"a peer outside of bench", map[string]string{"abi/a_test.go": imports("abi", "github.com/tetratelabs/wazero")},
			[]string{"abi/a_test.go:2: abi must not import github.com/tetratelabs/wazero: not among its imports of others"}},
		{"test module outside of tests", map[string]string{"bpf/a.go": imports("bpf", "github.com/google/go-cmp/cmp")},
			[]string{"bpf/a.go:2: bpf must not import github.com/google/go-cmp/cmp: not among its imports of others"}},

		{"unsafe", map[string]string{"image/a.go": imports("image", "unsafe")}, nil},
		{"unsafe without the mark", map[string]string{"bpf/a.go": imports("bpf", "unsafe"), "bpf/a_test.go": imports("bpf", "unsafe")},
			[]string{"bpf/a.go:2: bpf must not import unsafe: not marked unsafe", "bpf/a_test.go:2: bpf must not import unsafe: not marked unsafe"}},
		{"unsafe that pins", map[string]string{"jit/doc.go": "// Package jit is.\npackage jit\n", "jit/a.go": imports("jit", "unsafe"), "jit/a_test.go": imports("jit", "unsafe")},
			[]string{"jit/a.go:2: jit must not import unsafe: not marked unsafe"}},
		{"cgo", map[string]string{"image/a.go": imports("image", "C")},
			[]string{"image/a.go:2: image must not import C: no cgo"}},
		{"cgo with the mark", map[string]string{"bench/internal/cgocall/doc.go": "// Package cgocall is.\n" + imports("cgocall", "C")}, nil},
		{"linkname", map[string]string{"image/a.go": "package image\n\nimport _ \"unsafe\"\n\n//go:linkname now time.now\nfunc now()\n"},
			[]string{"image/a.go:5: uses go:linkname"}},
		{"linkname in a string", map[string]string{"image/a.go": "package image\n\nconst s = `\n//go:linkname now time.now\n`\n"}, nil},

		{"standard library", map[string]string{"image/a.go": imports("image", "os", "net/http")}, nil},
		{"impure", map[string]string{"bpf/a.go": imports("bpf", "os/exec", "strings", "nets", "io")},
			[]string{"bpf/a.go:2: bpf must not import os/exec: marked pure"}},
		{"impure test", map[string]string{"bpf/a_test.go": imports("bpf", "os")}, nil},
		{"testing outside of tests", map[string]string{"image/a.go": imports("image", "testing/iotest")},
			[]string{"image/a.go:2: image must not import testing/iotest: for tests only"}},

		{"600 lines", map[string]string{"abi/a.go": strings.Replace(lines(600), "package p", "package abi", 1)}, nil},
		{"601 lines", map[string]string{"abi/a_test.go": strings.Replace(lines(601), "package p", "package abi", 1)},
			[]string{"abi/a_test.go: has 601 lines, more than 600"}},
		{"601 generated lines", map[string]string{"abi/za.go": "// Code generated by hand. DO NOT EDIT.\n\n" + strings.Replace(lines(601), "package p", "package abi", 1)}, nil},

		{"no comment", map[string]string{"abi/doc.go": "package abi\n"}, []string{"abi: has no package comment"}},
		{"comment elsewhere", map[string]string{"blind/a.go": "// Package blind is.\npackage blind\n"}, []string{"blind: has no doc.go"}},
		{"comment of another form", map[string]string{"abi/doc.go": "// This is abi.\npackage abi\n"},
			[]string{`abi: the package comment does not begin with "Package abi"`}},
		{"two comments", map[string]string{"abi/z.go": "// Package abi is.\npackage abi\n"},
			[]string{"abi: has package comments in abi/doc.go and abi/z.go"}},
		{"licence only", map[string]string{"abi/doc.go": "// Copyright\n\npackage abi\n"}, []string{"abi: has no package comment"}},
		{"tests only", map[string]string{"blind/a_test.go": "// Package blind is.\npackage blind\n"},
			[]string{"blind: has no doc.go", "blind: has no package comment"}},
		{"command", map[string]string{"cmd/bpfjit/doc.go": "// Bpfjit is a command.\npackage main\n"}, nil},
		{"generator", map[string]string{"gen/asm/fill/fill_asm.go": "// Command fill writes.\n" + imports("main", "github.com/mmcloughlin/avo/build", Module+"/abi")}, nil},
		{"two packages", map[string]string{"abi/z.go": ok}, []string{"abi/z.go: package p beside package abi"}},
		{"broken", map[string]string{"abi/z.go": "package"},
			[]string{"abi/z.go: does not parse: abi/z.go:1:8: expected 'IDENT', found 'EOF'"}},

		{"stray module", map[string]string{"abi/go.mod": ""}, []string{"abi/go.mod: no module is expected here"}},
		{"ignored directories", map[string]string{"abi/testdata/a.go": ok, "_old/a.go": ok, ".x/a.go": ok}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules, err := ParsePolicy(Policy)
			if err != nil {
				t.Fatal(err)
			}
			tree := fstest.MapFS{"go.mod": {}, "gen/go.mod": {}, "bench/go.mod": {}}
			for _, p := range []string{"abi", "bpf", "image"} {
				tree[p+"/doc.go"] = &fstest.MapFile{Data: fmt.Appendf(nil, "// Package %s is.\npackage %[1]s\n", p)}
			}
			for name, text := range test.files {
				tree[name] = &fstest.MapFile{Data: []byte(text)}
			}
			problems, err := Check(tree, rules)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// imports returns a file with all its imports on line 2.
func imports(pkg string, paths ...string) string {
	s := "package " + pkg + "\nimport ("
	for _, p := range paths {
		s += fmt.Sprintf(" _ %q;", p)
	}
	return s + ")\n"
}

// TestCheckReadError makes sure that a tree that can't be read isn't taken for
// a good one.
func TestCheckReadError(t *testing.T) {
	if _, err := Check(os.DirFS("testdata/missing"), nil); err == nil {
		t.Error("no error for a tree that doesn't exist")
	}
}

func TestParsePolicy(t *testing.T) {
	for _, test := range []struct{ table, want string }{
		{"a | b | |\nb | | |\n", "policy: a may import b, which is not above it"},
		{"a | | |\na | | |\n", "policy: two rules for a"},
		{"a | | | purr\n", `policy: a has the unknown mark "purr"`},
		{"a | |\n", `policy: 3 columns instead of 4: "a | |\n"`},
		{"package | ours | others | marks\n\na | a | x.org/y | pure\nb | a | |\n", ""},
	} {
		_, err := ParsePolicy(test.table)
		if got := fmt.Sprint(err); got != test.want && !(err == nil && test.want == "") {
			t.Errorf("ParsePolicy(%q) = %v, want %q", test.table, err, test.want)
		}
	}
}
