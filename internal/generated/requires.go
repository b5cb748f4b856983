package generated

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// Requires returns the features of a processor that generated assembly says it
// requires, in the generator's names and sorted: all functions of the file, or some.
func Requires(file string, functions ...string) (features []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	counts := len(functions) == 0
	for line := range strings.Lines(string(text)) {
		if function, ok := strings.CutPrefix(line, "// func "); ok && len(functions) > 0 {
			name, _, _ := strings.Cut(function, "(")
			counts = slices.Contains(functions, name)
		}
		if list, ok := strings.CutPrefix(line, "// Requires: "); ok && counts {
			features = append(features, strings.Split(strings.TrimSpace(list), ", ")...)
		}
	}
	slices.Sort(features)
	return slices.Compact(features), nil
}

// NotAskedFor returns the features that generated assembly requires and without which
// supported says yes all the same. AVX comes with AVX2, and what isn't looked at here is in
// every amd64. It looks at all functions of the file, or at some.
func NotAskedFor(file string, supported func() bool, functions ...string) (features []string, err error) {
	required, err := Requires(file, functions...)
	for _, name := range required {
		var has *bool
		switch name {
		case "AVX2":
			has = &cpu.X86.HasAVX2
		case "BMI":
			has = &cpu.X86.HasBMI1
		case "BMI2":
			has = &cpu.X86.HasBMI2
		case "LZCNT":
			has = &cpu.X86.HasLZCNT
		case "POPCNT":
			has = &cpu.X86.HasPOPCNT
		default:
			continue
		}
		was := *has
		*has = false
		if supported() {
			features = append(features, name)
		}
		*has = was
	}
	return features, err
}
