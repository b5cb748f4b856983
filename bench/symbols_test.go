package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/stages"
	"github.com/bpfjit/bpfjit/jit"
)

// TestEncoderInProfile looks at a profile of the compiler: the default build
// on amd64 spends its time in the encoder's assembly and none in its Go twin;
// a purego build the other way round.
func TestEncoderInProfile(t *testing.T) {
	p := &bpf.Program{Insns: corpus.Generated(1, 10_000)[0].Insns}
	assembly := []string{"/encoder.writeAVO", "/encoder.joinAVO"}
	twin := []string{"/encoder.(*Draft).extendGeneric", "/encoder.(*Joint).extendGeneric"}
	wanted, unwanted := assembly, twin
	if !hasAssembly {
		wanted, unwanted = twin, assembly
	}
	seen, wrong := map[string]bool{}, map[string]bool{}
	for range 60 { // until there were samples of all that is wanted
		top := profile(t, func() {
			if _, err := jit.Compile(p, stages.Kernel, new(jit.Function)); err != nil {
				t.Fatal(err)
			}
		})
		look := func(found map[string]bool, symbols []string) {
			for _, s := range symbols {
				if strings.Contains(top, s) {
					found[s] = true
				}
			}
		}
		look(seen, wanted)
		look(wrong, unwanted)
		if len(seen) == len(wanted) || len(wrong) > 0 {
			break
		}
	}
	t.Logf("symbols in the profile: %d of %v, %d of %v", len(seen), wanted, len(wrong), unwanted)
	if len(seen) != len(wanted) || len(wrong) > 0 {
		t.Errorf("the wrong encoder was executed")
	}
}

// profile returns the functions in which the time of a second of work is spent.
func profile(t *testing.T, work func()) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cpu.prof")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < time.Second; {
		work()
	}
	pprof.StopCPUProfile()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=1000", "-nodefraction=0", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
