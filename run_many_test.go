//go:build linux && amd64 && !purego

package bpfjit_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/machine"
)

// TestMany has many programs and instances live at once, runs each of them,
// and says what memory they take. BPFJIT_MANY=1 is 100,000 programs and 10,000
// instances.
func TestMany(t *testing.T) {
	if err := machine.Check(); err != nil {
		t.Skip(err)
	}
	programs, instances := 2000, 200
	if os.Getenv("BPFJIT_MANY") == "1" {
		programs, instances = 100_000, 10_000
	}
	region, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	usedBefore := region.Stats().Used
	space := bpfjit.NewSpace()
	before := memory()
	all := make([]*bpfjit.Program, programs)
	for n := range all {
		insns := []bpf.Insn{{Op: 0xb7, Imm: int32(n)}, {Op: abi.OpExit}} // r0 = n
		all[n], err = bpfjit.CompileSource(&bpfjit.Source{Program: &bpf.Program{Insns: insns}},
			&bpfjit.Options{Engine: bpfjit.EngineJIT, Space: space})
		if err != nil {
			t.Fatalf("program %d: %v", n, err)
		}
	}
	t.Logf("%d programs: %v; images %d bytes each", programs, memory().since(before, programs),
		(region.Stats().Used-usedBefore)/int64(programs))
	run := func(n int, r interface {
		Run([]byte) (uint64, error)
	}) {
		if r0, err := r.Run(nil); err != nil || r0 != uint64(n) {
			t.Fatalf("%d: %d, %v", n, r0, err)
		}
	}
	for n, p := range all {
		run(n, p)
	}
	before = memory()
	ins := make([]*bpfjit.Instance, instances)
	for n := range ins {
		if ins[n], err = all[n].NewInstance(); err != nil {
			t.Fatalf("instance %d: %v", n, err)
		}
	}
	t.Logf("%d instances: %v", instances, memory().since(before, instances))
	for n, in := range ins {
		run(n, in)
	}
	t.Logf("%d instances that ran: %v", instances, memory().since(before, instances))
	for _, in := range ins {
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range all {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := space.Close(); err != nil {
		t.Error(err)
	}
	if left := region.Stats().Used - usedBefore; left != 0 {
		t.Errorf("%d bytes of images are left", left)
	}
}

// amounts of memory, in bytes, and of mappings.
type amounts struct{ resident, tables, heap, mappings int }

func memory() (m amounts) {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.heap = int(stats.HeapAlloc)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		var kB int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kB); err == nil {
			m.resident = kB << 10
		}
		if _, err := fmt.Sscanf(line, "VmPTE: %d kB", &kB); err == nil {
			m.tables = kB << 10
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	m.mappings = strings.Count(string(maps), "\n")
	return m
}

// since says what each of n things takes.
func (m amounts) since(o amounts, n int) string {
	f := float64(n)
	return fmt.Sprintf("each %.0f bytes of Go's heap, %.0f resident, %.0f of page tables, %.2f mappings",
		float64(m.heap-o.heap)/f, float64(m.resident-o.resident)/f, float64(m.tables-o.tables)/f, float64(m.mappings-o.mappings)/f)
}
