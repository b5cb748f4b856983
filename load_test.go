package bpfjit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
)

const (
	globals = "testdata/globals.bpf.o"
	example = "cmd/bpfjit/example/filter.bpf.o"
)

// values returns what is in a map, as text.
func values(m *bpfjit.Map) map[string]string { return maps.Collect(m.Text()) }

// TestLoadGlobals runs a program on all kinds of globals.
func TestLoadGlobals(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		s := spec(t, globals)
		if err := s.Variables["factor"].Set(uint32(10)); err != nil {
			t.Fatal(err)
		}
		p, err := bpfjit.Load(s, "add", &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for i, pkt := range [][]byte{{5, 0}, {6, 0, 0}, {}} {
			r0, out, err := p.RunPacket(pkt)
			if want := [...]uint64{2, 2, 0}[i]; r0 != want || err != nil || !bytes.Equal(out, pkt) {
				t.Errorf("packet %d: r0 %d, %v, %x", i, r0, err, out)
			}
		}
		// scale(v) is 10*v + 7.
		for name, want := range map[string]map[string]string{
			".data": {"total": "1124", "seed": "7"},
			".bss":  {"runs": "2", "record": "{a=67 b=[5 6 0]}"},
			"sums":  {"2": "57", "3": "67"},
		} {
			if diff := cmp.Diff(want, values(p.Map(name))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		if p.Map("counters") != nil || p.Map("") != nil {
			t.Error("a map that the program doesn't refer to")
		}
		// Another load of the same spec begins anew.
		q, err := bpfjit.Load(s, "add", &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if diff := cmp.Diff(map[string]string{"total": "1000", "seed": "7"}, values(q.Map(".data"))); diff != "" {
			t.Errorf("fresh .data (-want +got):\n%s", diff)
		}
	})
}

// TestLoadCollection runs the programs of an object on the maps that they
// share.
func TestLoadCollection(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		var trace bytes.Buffer
		c, err := bpfjit.LoadCollection(spec(t, globals), &bpfjit.Options{Engine: e, Trace: &trace, CPU: 3})
		if err != nil {
			t.Fatal(err)
		}
		names := slices.Sorted(maps.Keys(c.Programs))
		if diff := cmp.Diff([]string{"add", "environment", "primes", "store"}, names); diff != "" {
			t.Errorf("programs (-want +got):\n%s", diff)
		}
		for name, want := range map[string]uint64{
			"primes":      (2+7+13+19)*3 + 4*7,
			"environment": 0,
			"store":       1, // the loopback interface
			"add":         2,
		} {
			p := c.Programs[name]
			if p.Name() != name || p.Type() != ebpf.XDP {
				t.Errorf("%s: name %q, type %v", name, p.Name(), p.Type())
			}
			if r0, _, err := p.RunPacket([]byte{1, 2, 3, 4}); r0 != want || err != nil {
				t.Errorf("%s: r0 %d, %v; want %d", name, r0, err, want)
			}
		}
		if trace.String() != "cpu 3\n" {
			t.Errorf("trace %q", trace.String())
		}
		// store wrote sums[1], add wrote sums[0]; primes and add counted.
		if diff := cmp.Diff(map[string]string{"0": "10", "1": "1"}, values(c.Maps["sums"])); diff != "" {
			t.Errorf("sums (-want +got):\n%s", diff)
		}
		if got := values(c.Maps[".bss"])["runs"]; got != "5" {
			t.Errorf("runs %s, want 5", got)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Programs["add"].Run(nil); !errors.Is(err, bpfjit.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestSpace shares the memory of two loads, whose maps are apart.
func TestSpace(t *testing.T) {
	space := bpfjit.NewSpace()
	var programs []*bpfjit.Program
	for _, e := range []bpfjit.Engine{bpfjit.EngineAuto, bpfjit.EngineInterpreter} {
		p, err := bpfjit.Load(spec(t, globals), "add", &bpfjit.Options{Space: space, Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		programs = append(programs, p)
	}
	for i, p := range programs {
		if _, _, err := p.RunPacket([]byte{byte(i), 0, 0, 0}); err != nil {
			t.Error(err)
		}
		if got, want := values(p.Map("sums"))["0"], fmt.Sprint(i*3+7); got != want {
			t.Errorf("sums[0] of program %d is %s, want %s", i, got, want)
		}
	}
	if err := space.Close(); err != nil {
		t.Error(err)
	}
	if _, err := programs[0].Run(nil); !errors.Is(err, bpfjit.ErrClosed) {
		t.Errorf("after Close of the space: %v", err)
	}
	if _, err := bpfjit.Load(spec(t, globals), "add", &bpfjit.Options{Space: space}); err == nil {
		t.Error("maps in a closed space")
	}
}

// TestPackets builds the context structures of two types of program.
func TestPackets(t *testing.T) {
	pkt := make([]byte, 64)
	copy(pkt, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x86\xdd")
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		c, err := bpfjit.LoadCollection(spec(t, "testdata/skb.bpf.o"), &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r0, out, err := c.Programs["classify"].RunPacket(pkt)
		if r0 != 42 || err != nil || out[59] != 2 || pkt[59] != 0 {
			t.Errorf("classify: r0 %d, %v, %x", r0, err, out)
		}
		if r0, _, err := c.Programs["classify"].RunPacket(pkt[:10]); r0 != 2 || err != nil {
			t.Errorf("classify, short: r0 %d, %v", r0, err)
		}
		if r0, _, err := c.Programs["length"].RunPacket(pkt); r0 != 64 || err != nil {
			t.Errorf("length: r0 %d, %v", r0, err)
		}
		in, err := c.Programs["classify"].NewInstance()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		for range 3 {
			if r0, out, err := in.RunPacket(pkt); r0 != 42 || err != nil || out[59] != 2 {
				t.Errorf("instance: r0 %d, %v, %x", r0, err, out)
			}
		}

		// Without a type there is no context structure to build.
		p := program(t, e, "r0 = 0\nexit")
		if _, _, err := p.RunPacket(pkt); !errors.Is(err, bpfjit.ErrUnsupported) {
			t.Errorf("no type: %v", err)
		}
		p = program(t, e, "r0 = 0\nexit", func(o *bpfjit.Options) { o.Type = ebpf.Kprobe })
		if _, _, err := p.RunPacket(pkt); !errors.Is(err, bpfjit.ErrUnsupported) {
			t.Errorf("kprobe: %v", err)
		}
		// With one, its pointers are good.
		p = program(t, e, `
			r2 = *(u32 *)(r1 + 0)
			r3 = *(u32 *)(r1 + 4)
			r4 = *(u32 *)(r1 + 8)
			if r2 != r4 goto +4
			r0 = r3
			r0 -= r2
			r1 = *(u8 *)(r3 - 1)
			*(u8 *)(r2 + 0) = r1
			exit`, func(o *bpfjit.Options) { o.Type = ebpf.XDP })
		if r0, out, err := p.RunPacket([]byte{1, 2, 3}); r0 != 3 || err != nil || !bytes.Equal(out, []byte{3, 2, 3}) {
			t.Errorf("xdp: r0 %d, %v, %v", r0, err, out)
		}
	})
}

// TestRunStruct gives a program a context of the caller's making.
func TestRunStruct(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		p := program(t, e, "r0 = *(u32 *)(r1 + 4)\n r0 += r2\n *(u32 *)(r1 + 8) = r0\n exit")
		data := make([]byte, 12)
		binary.LittleEndian.PutUint32(data[4:], 77)
		if r0, err := p.RunStruct(data); r0 != 77 || err != nil || data[8] != 77 {
			t.Errorf("r0 %d, %v, %v", r0, err, data)
		}
		if _, err := p.RunStruct(make([]byte, 5000)); !errors.Is(err, bpfjit.ErrRange) {
			t.Errorf("5000 bytes: %v", err)
		}
	})
}

// TestLoadErrors: what an object can't give, by name.
func TestLoadErrors(t *testing.T) {
	object := func(path string) func() error {
		name, program, _ := strings.Cut(path, ":")
		return func() error {
			f, err := os.Open("testdata/" + name)
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := bpfjit.ReadSpec(f)
			if err != nil {
				return err
			}
			p, err := bpfjit.Load(s, program, nil)
			if err == nil {
				p.Close()
			}
			return err
		}
	}
	for _, test := range []struct {
		path, want string
		is         error
	}{
		{"library.bpf.o", "the object has no programs: functions in .text are none", nil},
		{"globals.bpf.o", "the object has several programs, name one: add, environment, primes, store", nil},
		{"globals.bpf.o:nothing", `the object has no program "nothing", but add, environment, primes, store`, nil},
		{"unsupported.bpf.o:kfunc", `kfunc: instruction 1 (call kfunc -1) at unsupported.bpf.c:30: calls the kernel's function "bpf_some_kfunc": not supported`, bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:kconfig", "kconfig: instruction 0 (r1 = map[fd:0][0]+0) at unsupported.bpf.c:36: refers to no map of the object, but to a file descriptor or to .kconfig: not supported", bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:tail", `tail: instruction 0 (r2 = map[fd:0]) at unsupported.bpf.c:42: map "jumps": `, bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:map_type", `map_type: instruction 4 (r1 = map[fd:0]) at unsupported.bpf.c:51: map "strange": `, bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:helper", "helper: instruction 0 (call 34) at unsupported.bpf.c:57: there is no helper function 34 (FnGetHashRecalc): not supported", bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:loop", "loop: instruction 8 (call 181) at unsupported.bpf.c:71: there is no helper function 181 (FnLoop): not supported", bpfjit.ErrUnsupported},
		{"unsupported.bpf.o:recursion", "recursion: instruction 12 (call pc-10) at unsupported.bpf.c:77: imm recurses: function at slot 3 is running already", nil},
	} {
		err := object(test.path)()
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v\nwant %s", test.path, err, test.want)
		}
		if test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v isn't %v", test.path, err, test.is)
		}
	}
	if _, err := bpfjit.LoadCollection(spec(t, "testdata/unsupported.bpf.o"), nil); !errors.Is(err, bpfjit.ErrUnsupported) {
		t.Errorf("a collection: %v", err)
	}
	// Without its programs, what is unsupported is left out.
	s := spec(t, "testdata/unsupported.bpf.o")
	for name := range s.Programs {
		if name != "recursion" {
			delete(s.Programs, name)
		}
	}
	s.Programs["recursion"].Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	c, err := bpfjit.LoadCollection(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Maps) != 0 {
		t.Errorf("maps %v", c.Maps)
	}
	// A big-endian object.
	s.ByteOrder = binary.BigEndian
	if _, err := bpfjit.Load(s, "recursion", nil); !errors.Is(err, bpfjit.ErrUnsupported) {
		t.Errorf("big-endian: %v", err)
	}
}

// TestCORE takes field accesses as the object's own types have them.
func TestCORE(t *testing.T) {
	p, err := bpfjit.Load(spec(t, "testdata/core.bpf.o"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if r0, _, err := p.RunPacket(make([]byte, 60)); r0 != 1 || err != nil {
		t.Errorf("r0 %d, %v; want the loopback interface", r0, err)
	}
}

// TestV4 runs what clang emits for -mcpu=v4.
func TestV4(t *testing.T) {
	engines(t, func(t *testing.T, e bpfjit.Engine) {
		c, err := bpfjit.LoadCollection(spec(t, "testdata/v4.bpf.o"), &bpfjit.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ops := make(map[uint8]bool)
		for _, p := range c.Programs {
			for _, in := range p.Source().Program.Insns {
				ops[in.Op] = true
			}
		}
		for _, op := range []uint8{0x06, 0x91, 0x89, 0x81, 0xd7} {
			if !ops[op] {
				t.Errorf("the object has no opcode %#02x", op)
			}
		}
		q := int64(-0x1234567890abcdef)
		mem := make([]byte, 64)
		for i, v := range []int64{-5, -6, -7, q} {
			binary.LittleEndian.PutUint64(mem[8*i:], uint64(v))
		}
		r0, err := c.Programs["signs"].Run(mem)
		var got []int64
		for i := 4; i < 8; i++ {
			got = append(got, int64(binary.LittleEndian.Uint64(mem[8*i:])))
		}
		var swap [16]byte
		binary.LittleEndian.PutUint64(swap[:], uint64(q))
		binary.LittleEndian.PutUint32(swap[8:], uint32(q))
		want := []int64{q / -7, q % -6, int64(int8(q)) + int64(int16(q)) + int64(int32(q)),
			int64(binary.BigEndian.Uint64(swap[:]) ^ uint64(binary.BigEndian.Uint32(swap[8:])))}
		if diff := cmp.Diff(want, got); diff != "" || int64(r0) != -18 || err != nil {
			t.Errorf("r0 %d, %v (-want +got):\n%s", int64(r0), err, diff)
		}
		if r0, err := c.Programs["far"].Run(mem); int64(r0) != -5 || err != nil {
			t.Errorf("far: r0 %d, %v", int64(r0), err)
		}
	})
}
