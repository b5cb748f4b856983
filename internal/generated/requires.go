package generated

import (
	"os"
	"slices"
	"strings"
)

// Requires returns the features of a processor that generated assembly says it
// requires, in the generator's names and sorted.
func Requires(file string) (features []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if list, ok := strings.CutPrefix(line, "// Requires: "); ok {
			features = append(features, strings.Split(strings.TrimSpace(list), ", ")...)
		}
	}
	slices.Sort(features)
	return slices.Compact(features), nil
}
