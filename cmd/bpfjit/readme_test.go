package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/cpu"

	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/kernel"
)

var (
	// A command of the README, with what echo writes into it.
	readmeCommand = regexp.MustCompile(`(?m)^    (?:echo (?:'(.*)'|(.*)) \|\n +)?go run \./cmd/bpfjit (.*)$`)
	// What a remark says of the lines below it.
	readmeOutput  = regexp.MustCompile(`(?m)^<!-- (output|beginning of the output|output, with other numbers) -->\n\n((?:    .*\n|\n)+)`)
	readmeExample = regexp.MustCompile("(?m)^<!-- (Example[A-Za-z]+) -->\n\n```go\n((?s:.*?))```$")
)

// TestReadme holds what the README shows of commands to what they write, times
// aside: the output below a remark is that of the last command above it. -update
// writes it anew.
func TestReadme(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	shown := 0
	for _, m := range slices.Backward(readmeOutput.FindAllStringSubmatchIndex(readme, -1)) {
		kind, block := readme[m[2]:m[3]], strings.TrimRight(readme[m[4]:m[5]], "\n")
		commands := readmeCommand.FindAllStringSubmatch(readme[:m[0]], -1)
		if commands == nil {
			t.Fatalf("output without a command:\n%s", block)
		}
		last := commands[len(commands)-1]
		t.Run(last[3], func(t *testing.T) {
			args := strings.Fields(last[3])
			needForReadme(t, args[0])
			var out, errs bytes.Buffer
			if code := run(strings.NewReader(last[1]+last[2]), &out, &errs, args); code != exitOK || errs.Len() > 0 {
				t.Fatalf("exit %d: %s", code, &errs)
			}
			got := indent(out.String(), kind, strings.Count(block, "\n")+1)
			if equalOutput(block, got, kind) {
				return
			}
			if *golden.Update {
				readme = readme[:m[4]] + got + readme[m[4]+len(block):]
				return
			}
			t.Errorf("the README shows something else, go test -update mends it (-README +command):\n%s", cmp.Diff(block, got))
		})
		shown++
	}
	if shown < 6 {
		t.Errorf("only %d outputs found", shown)
	}
	if *golden.Update {
		if err := os.WriteFile("README.md", []byte(readme), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// needForReadme skips commands whose output can't be had here.
func needForReadme(t *testing.T, command string) {
	switch command {
	case "run", "dump", "vectors":
		if !haveJIT() || !cpu.X86.HasBMI2 {
			t.Skip("shows machine code of a processor with BMI2")
		}
	case "diff":
		kernel.Require(t)
	}
}

// indent puts the output, or so many lines of its beginning, into the form of
// a block.
func indent(out, kind string, lines int) string {
	list := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if strings.HasPrefix(kind, "beginning") {
		list = list[:min(lines, len(list))]
	}
	for i, l := range list {
		if list[i] = ""; l != "" {
			list[i] = "    " + strings.TrimRight(l, " ")
		}
	}
	return strings.Join(list, "\n")
}

var (
	anyTime   = regexp.MustCompile(`\d+(\.\d+)? ([nµm]?s)\b`)
	anyNumber = regexp.MustCompile(`\d+`)
	anyBlanks = regexp.MustCompile(`   +`)
)

// equalOutput compares but for times, for the width of columns that have times,
// and for numbers where these are others on other machines.
func equalOutput(a, b, kind string) bool {
	mask := func(s string) string {
		s = anyTime.ReplaceAllString(s, "TIME")
		if strings.HasSuffix(kind, "numbers") {
			s = anyNumber.ReplaceAllString(s, "N")
		}
		return anyBlanks.ReplaceAllString(s, "  ")
	}
	return mask(a) == mask(b)
}

// TestReadmeExample holds the README's Go code to the example of its name.
func TestReadmeExample(t *testing.T) {
	repo := filepath.Join("..", "..")
	readme, err1 := os.ReadFile(filepath.Join(repo, "README.md"))
	source, err2 := os.ReadFile(filepath.Join(repo, "example_test.go"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	examples := readmeExample.FindAllStringSubmatch(string(readme), -1)
	if len(examples) != 1 || strings.Count(string(readme), "```go") != len(examples) {
		t.Fatalf("%d examples found", len(examples))
	}
	for _, m := range examples {
		_, body, ok := strings.Cut(string(source), fmt.Sprintf("func %s() {\n", m[1]))
		body, _, _ = strings.Cut(body, "\n}\n")
		want := strings.ReplaceAll("\n"+body, "\n\t", "\n")[1:] + "\n"
		if d := cmp.Diff(want, m[2]); !ok || d != "" {
			t.Errorf("%s (-example_test.go +README):\n%s", m[1], d)
		}
	}
}

// TestReadmeCommands: the README has every command, in the words of the usage.
func TestReadmeCommands(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if !strings.Contains(string(readme), fmt.Sprintf("\n| `bpfjit %s` | %s", c.name, c.summary)) {
			t.Errorf("the table of commands lacks %s: %s", c.name, c.summary)
		}
	}
}
