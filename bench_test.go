package bpfjit

import (
	"testing"

	"github.com/cilium/ebpf"
)

func BenchmarkRunPacket(b *testing.B) {
	spec, err := ebpf.LoadCollectionSpec("cmd/bpfjit/example/filter.bpf.o")
	if err != nil {
		b.Fatal(err)
	}
	pkt := make([]byte, 64)
	for _, e := range []Engine{EngineJIT, EngineInterpreter} {
		p, err := Load(spec, "filter", &Options{Engine: e})
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		in, err := p.NewInstance()
		if err != nil {
			b.Fatal(err)
		}
		defer in.Close()
		b.Run("engine="+e.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := in.RunPacket(pkt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
