package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/kernel"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bpfjit": main})
}

// TestScripts runs the command as a shell would. The scripts find the
// repository in $REPO, and captures of the example's packets in their
// directory. The conditions [jit] and [kernel] are true where machine code
// can run, and where a kernel can be asked.
func TestScripts(t *testing.T) {
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if kernel.Available() == nil {
		kernel.Require(t) // no other test hardens it meanwhile
	}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *golden.Update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("REPO", repo)
			return writeCaptures(env.WorkDir)
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "jit":
				return haveJIT(), nil
			case "kernel":
				kernelErr := kernel.Available()
				if kernelErr != nil && os.Getenv("BPFJIT_REQUIRE_KERNEL") == "1" {
					return false, kernelErr
				}
				return kernelErr == nil, nil
			}
			return false, nil
		},
	})
}

func haveJIT() bool {
	p, err := bpfjit.CompileBytes([]byte{0x95, 0, 0, 0, 0, 0, 0, 0}, nil)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Info().Engine == bpfjit.EngineJIT
}

// writeCaptures writes the example's packets as a pcap and as a pcapng file.
func writeCaptures(dir string) error {
	packets, err := parseHex(examplePackets)
	if err != nil {
		return err
	}
	plain, err := os.Create(filepath.Join(dir, "packets.pcap"))
	if err != nil {
		return err
	}
	defer plain.Close()
	w := pcapgo.NewWriter(plain)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeEthernet); err != nil {
		return err
	}
	next, err := os.Create(filepath.Join(dir, "packets.pcapng"))
	if err != nil {
		return err
	}
	defer next.Close()
	ng, err := pcapgo.NewNgWriter(next, layers.LinkTypeEthernet)
	if err != nil {
		return err
	}
	for _, p := range packets {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(p), Length: len(p)}
		if err := w.WritePacket(info, p); err != nil {
			return err
		}
		if err := ng.WritePacket(info, p); err != nil {
			return err
		}
	}
	return ng.Flush()
}
