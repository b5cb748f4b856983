package bpfjit_test

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/machine"
)

// TestKernelAgrees runs random programs that the verifier accepts in the live
// kernel and here, in both engines: R0 (of which the kernel tells 32 bits) and
// the packet, into which the programs fold all registers and the stack, must
// be the same.
func TestKernelAgrees(t *testing.T) {
	kernel.Require(t)
	types := map[testprog.Kind]ebpf.ProgramType{
		testprog.XDP: ebpf.XDP, testprog.SchedCLS: ebpf.SchedCLS, testprog.SocketFilter: ebpf.SocketFilter,
	}
	engines := []bpfjit.Engine{bpfjit.EngineInterpreter}
	if machine.Available() == nil {
		engines = append(engines, bpfjit.EngineJIT)
	}
	seed := testprog.Seed(t)
	want := runs(t, 200)
	accepted, folded, bad := 0, 0, 0
	for i := uint64(0); accepted < want; i++ {
		prog := testprog.Verified(seed, i, testprog.Limits{})
		k, err := kernel.Load(&kernel.Spec{Type: kernel.Type(prog.Kind), Insns: prog.Insns, Quiet: true})
		if err != nil {
			if int(i) > 20+2*accepted {
				t.Fatalf("the verifier refuses most programs, such as %s: %v", prog.Name, err)
			}
			continue
		}
		r, err := k.Run(kernel.RunOptions{Data: prog.Packet})
		k.Close()
		if err != nil {
			t.Fatalf("%s: %v", prog.Name, err)
		}
		accepted++
		if prog.Folded {
			folded++
		}
		for _, engine := range engines {
			p, err := bpfjit.CompileBytes(bpf.Encode(prog.Insns), &bpfjit.Options{
				Name: prog.Name, Engine: engine, Type: types[prog.Kind], Budget: -1,
			})
			if err != nil {
				t.Fatalf("%s: %v", prog.Name, err)
			}
			r0, out, err := p.RunPacket(prog.Packet)
			p.Close()
			if err != nil {
				t.Errorf("%s: %v: %v", prog.Name, engine, err)
			} else if uint32(r0) != r.Return {
				t.Errorf("%s: %v: R0 is %#x, in the kernel %#x", prog.Name, engine, uint32(r0), r.Return)
			} else if prog.Folded && !bytes.Equal(out, r.Data) {
				t.Errorf("%s: %v: packet\n%x\nin the kernel\n%x", prog.Name, engine, out, r.Data)
			} else {
				continue
			}
			if bad++; bad == 5 {
				t.Fatal("too many differences")
			}
		}
	}
	t.Logf("%d programs, %d of them with all registers and the stack in the packet; %d differ", accepted, folded, bad)
}
