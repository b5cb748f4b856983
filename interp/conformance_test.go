package interp

import (
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
)

// TestConformance runs the vectors of the public conformance suite, and
// compares all 64 bits of R0.
func TestConformance(t *testing.T) {
	rows := testprog.Open(t)
	for _, r := range rows {
		t.Run(r.Name, func(t *testing.T) {
			prog := prepare(t, &bpf.Program{Insns: r.Insns})
			for kind := range kinds() {
				cfg := &Config{Budget: 1 << 20, Helper: func(number uint32) abi.HelperFunc {
					if number != 5 { // ktime_get_ns, whose result isn't used
						return nil
					}
					return func(abi.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) { return 1, nil }
				}}
				if len(r.Memory) > 0 {
					cfg.R1, cfg.R2 = abi.MemBase, uint64(len(r.Memory))
				}
				got := prog.Run(newInstance(t, kind, r.Memory), cfg)
				if got.Stop != abi.StopExit || got.R0 != r.Expect.Value {
					t.Errorf("%+v, want r0 = %#x", got, r.Expect.Value)
				}
			}
		})
	}
	t.Logf("%d vectors", len(rows))
}
