//go:build amd64 && !purego

package blind

import (
	"slices"
	"testing"

	"golang.org/x/sys/cpu"

	"github.com/bpfjit/bpfjit/internal/generated"
)

// TestSupported: the assembly doesn't run on a processor that lacks something it
// requires. AVX comes with AVX2, and everything else is in every amd64.
func TestSupported(t *testing.T) {
	flags := map[string]*bool{
		"AVX2": &cpu.X86.HasAVX2, "BMI": &cpu.X86.HasBMI1, "BMI2": &cpu.X86.HasBMI2,
		"LZCNT": &cpu.X86.HasLZCNT, "POPCNT": &cpu.X86.HasPOPCNT,
	}
	for _, file := range []string{"layout_amd64.s"} {
		required, err := generated.Requires(file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(required, "AVX2") {
			t.Errorf("%s requires %v", file, required)
		}
		for _, name := range required {
			if has := flags[name]; has != nil {
				was := *has
				*has = false
				if supported() {
					t.Errorf("%s runs without %s", file, name)
				}
				*has = was
			}
		}
	}
}
