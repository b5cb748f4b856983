package bpftest_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/bpftest"
)

const (
	object  = "../cmd/bpfjit/example/filter.bpf.o"
	packets = "../cmd/bpfjit/example/packets.hex"

	xdpDrop, xdpPass, xdpTx = 1, 2, 3

	kindARP = uint32(1)
)

// packet returns a packet of the example by its number, from 0.
func packet(t *testing.T, n int) []byte {
	t.Helper()
	b, err := os.ReadFile(packets)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(b), "\n\n") {
		var digits strings.Builder
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		if digits.Len() == 0 {
			continue
		}
		if n--; n < 0 {
			p, err := hex.DecodeString(digits.String())
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
	}
	t.Fatal("no such packet")
	return nil
}

// TestFilter is what a user writes.
func TestFilter(t *testing.T) {
	o := bpftest.Load(t, object, nil)

	if verdict, _ := o.Packet("filter", packet(t, 0)); verdict != xdpPass {
		t.Errorf("ARP: verdict %d, want %d", verdict, xdpPass)
	}
	if verdict, _ := o.Packet("filter", packet(t, 2)); verdict != xdpDrop {
		t.Errorf("telnet: verdict %d, want %d", verdict, xdpDrop)
	}
	if diff := cmp.Diff([]string{"blocked port 23"}, o.Trace); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	ping := packet(t, 4)
	verdict, reply := o.Packet("filter", ping)
	if verdict != xdpTx || bytes.Equal(reply, ping) || !bytes.Equal(reply[0:6], ping[6:12]) {
		t.Errorf("ping: verdict %d, reply %x", verdict, reply)
	}
	var c struct{ Packets, Bytes uint64 }
	o.Value("counters", kindARP, &c)
	if c.Packets != 1 || c.Bytes != uint64(len(packet(t, 0))) {
		t.Errorf("ARP is counted as %+v", c)
	}
	o.Set("counters", kindARP, struct{ Packets, Bytes uint64 }{7, 9})
	o.Packet("filter", packet(t, 0))
	if o.Value("counters", kindARP, &c); c.Packets != 8 {
		t.Errorf("after Set(7): %+v", c)
	}
	t.Log("engines:", o.Engines())
}

// TestVariables changes a constant of the object before it is loaded.
func TestVariables(t *testing.T) {
	o := bpftest.Load(t, object, &bpftest.Options{Variables: map[string]any{"answer_pings": uint8(0)}})
	if verdict, _ := o.Packet("filter", packet(t, 4)); verdict != xdpPass {
		t.Errorf("ping: verdict %d, want %d", verdict, xdpPass)
	}
}

// fatal records what a test would have failed with.
type fatal struct {
	testing.TB
	text string
}

func (f *fatal) Helper() {}
func (f *fatal) Fatalf(format string, args ...any) {
	f.text = format
	panic(f)
}
func (f *fatal) Fatal(args ...any) {
	f.text = "fatal"
	panic(f)
}

// TestMistakes: wrong names fail the test that made them.
func TestMistakes(t *testing.T) {
	f := &fatal{TB: t}
	o := bpftest.Load(f, object, nil)
	for _, mistake := range []func(){
		func() { o.Packet("filler", packet(t, 0)) },
		func() { o.Value("counter", uint32(0), new(uint64)) },
		func() { o.Value("counters", uint32(1000), new(uint64)) },
		func() { o.Set("counters", uint64(0), uint64(0)) },
		func() { bpftest.Load(f, "no such file", nil) },
		func() { bpftest.Load(f, object, &bpftest.Options{Variables: map[string]any{"answer": 1}}) },
	} {
		f.text = ""
		func() {
			defer func() { _ = recover() }()
			mistake()
		}()
		if f.text == "" {
			t.Error("a mistake went by")
		}
	}
}
