package bpfjit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
)

// hashSpec is a program p with a hash map m: keys of 4 bytes, values of 8.
func hashSpec() *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 10}},
		Programs: map[string]*ebpf.ProgramSpec{"p": {Name: "p", Type: ebpf.XDP, Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, 0).WithReference("m"), asm.Mov.Imm(asm.R0, 0), asm.Return(),
		}}},
	}
}

// TestMapClosed: maps whose memory is gone say so.
func TestMapClosed(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p, err := bpfjit.Load(hashSpec(), "p", &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		m, key, value := p.Map("m"), []byte{1, 0, 0, 0}, []byte("12345678")
		if err := m.Update(key, value, 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		_, lookup := m.Lookup(key)
		for name, err := range map[string]error{"Lookup": lookup, "Update": m.Update(key, value, 0), "Delete": m.Delete(key)} {
			if !errors.Is(err, bpfjit.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for range m.All() {
			t.Error("All yields an entry")
		}
		for range m.Text() {
			t.Error("Text yields an entry")
		}
	})
}

// TestTextHuge: what was written to the largest array is found at once. Looking at
// each of its elements would take seconds, and all of its memory.
func TestTextHuge(t *testing.T) {
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: abi.SharedMax / 8}},
		Programs: map[string]*ebpf.ProgramSpec{"p": {Name: "p", Type: ebpf.XDP, Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, 0).WithReference("m"), asm.Mov.Imm(asm.R0, 0), asm.Return(),
		}}},
	}
	p, err := bpfjit.Load(spec, "p", nil)
	if errors.Is(err, cage.ErrFull) {
		t.Skip("there is less memory here:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m := p.Map("m")
	want := map[string]string{}
	for _, key := range []uint32{0, 1, 12345678, abi.SharedMax/8 - 1} {
		b := binary.LittleEndian.AppendUint32(nil, key)
		if err := m.Update(b, []byte("12345678"), 0); err != nil {
			t.Fatal(err)
		}
		want[hex.EncodeToString(b)] = hex.EncodeToString([]byte("12345678"))
	}
	begin := time.Now()
	got := values(m)
	took := time.Since(begin)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if needJIT(t); took > time.Second { // where windows are, untouched memory is known
		t.Errorf("took %v", took)
	}
}

// TestClosedSpace: nothing is loaded into a closed Space, or runs there.
func TestClosedSpace(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		space := bpfjit.NewSpace()
		p := program(t, e, "exit", func(o *bpfjit.Options) { o.Space = space })
		if err := space.Close(); err != nil {
			t.Fatal(err)
		}
		opts := &bpfjit.Options{Space: space, Engine: e}
		_, load := bpfjit.Load(hashSpec(), "p", opts)
		_, collection := bpfjit.LoadCollection(hashSpec(), opts)
		_, run := p.Run(nil)
		_, instance := p.NewInstance()
		for name, err := range map[string]error{"Load": load, "LoadCollection": collection, "Run": run, "NewInstance": instance} {
			if !errors.Is(err, bpfjit.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestCloseSpaceFirst: Program.Close waits for runs also when its Space was closed
// before.
func TestCloseSpaceFirst(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		space, inside, leave := bpfjit.NewSpace(), make(chan bool), make(chan bool)
		p := program(t, e, "call 1000\nr0 = 7\nexit", func(o *bpfjit.Options) {
			o.Space = space
			o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
				close(inside)
				<-leave
				return 0, nil
			}}
		})
		type outcome struct {
			r0  uint64
			err error
		}
		ran, closed := make(chan outcome, 1), make(chan error, 1)
		go func() {
			r0, err := p.Run(nil)
			ran <- outcome{r0, err}
		}()
		<-inside
		if err := space.Close(); err != nil {
			t.Fatal(err)
		}
		go func() { closed <- p.Close() }()
		select {
		case err := <-closed:
			t.Errorf("Close returned %v while the program ran", err)
		case <-time.After(20 * time.Millisecond):
		}
		close(leave)
		if o := <-ran; o != (outcome{r0: 7}) {
			t.Errorf("%+v", o)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// TestUpdateSize: a value of another size isn't taken, none at all neither.
func TestUpdateSize(t *testing.T) {
	p, err := bpfjit.Load(hashSpec(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, value := range [][]byte{nil, {}, make([]byte, 7), make([]byte, 9)} {
		if err := p.Map("m").Update(make([]byte, 4), value, 0); !errors.Is(err, abi.EINVAL) {
			t.Errorf("%d bytes: %v", len(value), err)
		}
	}
}

// TestPacketAgain: what a run left in an instance may be the next run's packet.
func TestPacketAgain(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "exit", func(o *bpfjit.Options) { o.Type = ebpf.XDP })
		in, err := p.NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		packet := make([]byte, 5000)
		for i := range packet {
			packet[i] = byte(i)
		}
		_, out, err := in.RunPacket(packet)
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := in.RunPacket(out[2000:])
		if err != nil || !bytes.Equal(again, packet[2000:]) {
			t.Errorf("%d other bytes, %v", len(again), err)
		}
	})
}

// TestNotBegun: a run that is cancelled before it begins uses nothing.
func TestNotBegun(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		in, err := program(t, e, "r0 = 1\nexit").NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := in.Run(nil); err != nil || in.Used() == 0 {
			t.Fatalf("%v, used %d", err, in.Used())
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := in.RunContext(ctx, nil); !errors.Is(err, context.Canceled) || in.Used() != 0 {
			t.Errorf("%v, used %d", err, in.Used())
		}
	})
}

// polls is a context that is cancelled when it has been asked a number of times.
type polls struct {
	context.Context
	left int
}

func (c *polls) Done() <-chan struct{} { return make(chan struct{}) }
func (c *polls) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestCancelledAlike: both engines ask at the same instructions whether a run is
// cancelled, and have used as much by then.
func TestCancelledAlike(t *testing.T) {
	for _, n := range []int{1, 2, 5, 20} {
		var used []int64
		var slots []int
		engines(t, func(t *testing.T, e bpfjit.Engine) {
			in, err := program(t, e, "r0 += 1\nr1 += 1\nif r0 != 77777 goto +1\nr4 += 1\ngoto -5", func(o *bpfjit.Options) { o.Budget = -1 }).NewInstance()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			_, err = in.RunContext(&polls{context.Background(), n}, nil)
			var re *bpfjit.RunError
			if !errors.As(err, &re) || !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			used, slots = append(used, in.Used()), append(slots, re.Offset)
		})
		for k := range used {
			if used[k] != used[0] || slots[k] != slots[0] {
				t.Errorf("asked %d times: used %d in slots %d", n, used, slots)
			}
		}
	}
}

// TestSlowHelpers: a run that does nothing but call helpers, which may take long, asks
// after abi.SliceCalls of them whether it is cancelled.
func TestSlowHelpers(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		p := program(t, e, "call 1000\ngoto -2", func(o *bpfjit.Options) {
			o.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: func(bpfjit.Env, uint64, uint64, uint64, uint64, uint64) (uint64, error) {
				calls++
				cancel()
				return 0, nil
			}}
		})
		if _, err := p.RunContext(ctx, nil); !errors.Is(err, context.Canceled) || calls != abi.SliceCalls {
			t.Errorf("%v, %d calls", err, calls)
		}
	})
}
