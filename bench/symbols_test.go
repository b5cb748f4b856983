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
	file := filepath.Join(t.TempDir(), "cpu.prof")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < time.Second; {
		if _, err := jit.Compile(p, stages.Kernel, new(jit.Function)); err != nil {
			t.Fatal(err)
		}
	}
	pprof.StopCPUProfile()
	f.Close()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=1000", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	count := func(suffixes ...string) (n int) {
		for line := range strings.Lines(string(out)) {
			for _, s := range suffixes {
				if strings.Contains(line, "/encoder."+s) {
					t.Log(strings.TrimSpace(line))
					n++
				}
			}
		}
		return n
	}
	asm, twin := count("measureAVO", "emitAVO"), count("measureGeneric", "emitGeneric")
	t.Logf("symbols in the profile: %d of the assembly, %d of its twin", asm, twin)
	if hasAssembly && (asm != 2 || twin != 0) || !hasAssembly && (asm != 0 || twin == 0) {
		t.Errorf("the wrong encoder was executed")
	}
}
