package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// hostile is the example with other names: each commands a terminal, and goes on
// in a line of its own.
func hostile(t *testing.T) string {
	t.Helper()
	object := exampleObject
	for _, name := range []string{"filter", "counters", "packets", "KIND_SHORT", "count", "filter.bpf.c"} {
		old := name + "\x00"
		if !bytes.Contains(object, []byte(old)) {
			t.Fatalf("the example has no name %s", name)
		}
		evil := ("\x1b[m\n!" + name)[:len(name)] + "\x00"
		object = bytes.ReplaceAll(object, []byte(old), []byte(evil))
	}
	path := filepath.Join(t.TempDir(), "hostile.bpf.o")
	if err := os.WriteFile(path, object, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHostileNames: whatever the names in an object are, the command writes no
// control characters but ends of its own lines.
func TestHostileNames(t *testing.T) {
	object := hostile(t)
	packets := filepath.Join("example", "packets.hex")
	for _, args := range [][]string{
		{"run", object, packets},
		{"run", "-budget", "3", object, packets},
		{"run", "-prog", "none", object, packets},
		{"dump", object},
		{"dump", "-profile", "kernel", object},
		{"dump", "-profile", "kernel", "-gadgets", object},
		{"predict", "-seeds", "1", object},
		{"run", "-json", object, packets},
		{"predict", "-json", "-seeds", "1", object},
	} {
		var stdout, stderr bytes.Buffer
		run(strings.NewReader(""), &stdout, &stderr, args)
		text := stdout.String() + stderr.String()
		shown := false
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "!") || strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
				t.Errorf("bpfjit %s: %q", args, line)
			}
			shown = shown || strings.Contains(line, `\x1b[m\n`) || strings.Contains(line, `\u001b[m\n`)
		}
		if !shown {
			t.Errorf("bpfjit %s shows none of the names:\n%s", args, text)
		}
	}
}
