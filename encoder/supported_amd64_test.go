//go:build amd64 && !purego

package encoder

import (
	"testing"

	"github.com/bpfjit/bpfjit/internal/generated"
)

// TestSupported: the assembly doesn't run on a processor that lacks something it
// requires.
func TestSupported(t *testing.T) {
	for _, file := range []string{"encoder_amd64.s", "../jit/survey_amd64.s", "../jit/passes_amd64.s"} {
		if list, err := generated.NotAskedFor(file, supported); err != nil || list != nil {
			t.Errorf("%s runs without %v, error %v", file, list, err)
		}
	}
}
