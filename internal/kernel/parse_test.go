package kernel

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

func TestParseSymbols(t *testing.T) {
	s, err := parseSymbols(strings.NewReader(`ffffffff81000000 T __pfx_first
ffffffff81000010 T first
ffffffff81000010 t alias
0000000000000000 A hidden
ffffffff81000020 t first
ffffffffc0000000 t bpf_prog_0123456789abcdef	[bpf]
`))
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := s.Addr("first"); !ok || a != 0xffffffff81000010 {
		t.Errorf("first is at %#x, %v", a, ok)
	}
	if n := s.Name(0xffffffff81000010); n != "first" {
		t.Errorf("the name is %q", n)
	}
	for _, name := range []string{"hidden", "bpf_prog_0123456789abcdef", "none"} {
		if a, ok := s.Addr(name); ok {
			t.Errorf("%s is at %#x", name, a)
		}
	}
	for _, bad := range []string{"", "0000000000000000 T hidden\n", "x T y\n"} {
		if _, err := parseSymbols(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseTypes(t *testing.T) {
	w := &btfWriter{strings: []byte{0}}
	w.add("int", btfInt, 0, 4, 1<<24|32)
	w.add("point", uint32(BTFStruct), 2, 8, w.str("x"), 1, 0, w.str("y"), 1, 32)
	w.add("", btfFuncProto, 0, 1)
	w.add("call", btfFunc, 1, 3)
	w.add("call", btfFunc, 1, 3)
	w.add("call_t", uint32(BTFTypedef), 0, 3)
	b := w.bytes()
	types, err := parseTypes(b)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[typeName]uint32{{"point", BTFStruct}: 2, {"call", BTFFunc}: 4, {"call_t", BTFTypedef}: 6} {
		if types[key] != want {
			t.Errorf("%v is %d, want %d", key, types[key], want)
		}
	}
	if len(types) != 3 {
		t.Errorf("types: %v", types)
	}
	for n := range b { // no piece of it may lead astray
		if _, err := parseTypes(b[:n]); err == nil {
			t.Errorf("%d of %d bytes: no error", n, len(b))
		}
	}
}

func TestDangerous(t *testing.T) {
	far := func(op uint8, off int16, body abi.Insn) []abi.Insn {
		insns := make([]abi.Insn, 33000)
		for i := range insns {
			insns[i] = body
		}
		insns[32900] = abi.Insn{Op: op, Off: off}
		return insns
	}
	mov, div := abi.Insn{Op: 0xb7}, abi.Insn{Op: 0x37, Imm: 3}
	for _, test := range []struct {
		name  string
		insns []abi.Insn
		want  bool
	}{
		{"at the end", far(0x15, -32768, mov), true},
		{"blinded it would be there", far(0x15, -8100, mov), true},
		{"far from it", far(0x15, -7000, mov), false},
		{"forward", far(0x15, 32767, mov)[:100], false},
		{"divisions grow", far(0x1d, -900, div), true},
		{"few divisions", far(0x1d, -700, div), false},
		{"32 bits", far(abi.OpGotol, -1, mov), false},
		{"ja", far(abi.OpJa, -32767, mov), true},
		{"jmp32", far(0x16, -32767, mov), true},
		{"a call has no offset", far(abi.OpCall, -32767, mov), false},
	} {
		if got := dangerous(test.insns); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestLoadError(t *testing.T) {
	log := "0: R1=ctx()\n1: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000) max_states_per_insn 0\n"
	for _, test := range []struct {
		err         *LoadError
		short, long string
		byJIT       bool
	}{
		{&LoadError{syscall.EACCES, log}, "kernel: load: permission denied: R0 !read_ok", "kernel: load: permission denied: R0 !read_ok\n" + log, false},
		{&LoadError{JITErrno, "processed 3 insns\n"}, "kernel: load: not supported (errno 524): the JIT refused it", "kernel: load: not supported (errno 524): the JIT refused it\nprocessed 3 insns\n", true},
		{&LoadError{JITErrno, log}, "kernel: load: not supported (errno 524): R0 !read_ok", "kernel: load: not supported (errno 524): R0 !read_ok\n" + log, false},
		{&LoadError{syscall.EPERM, ""}, "kernel: load: operation not permitted", "kernel: load: operation not permitted", false},
	} {
		if got := fmt.Sprintf("%v", test.err); got != test.short {
			t.Errorf("%%v: %q, want %q", got, test.short)
		}
		if got := fmt.Sprintf("%+v", test.err); got != test.long {
			t.Errorf("%%+v: %q, want %q", got, test.long)
		}
		if test.err.ByJIT() != test.byJIT {
			t.Errorf("%v: ByJIT is %v", test.err, test.err.ByJIT())
		}
		if !errors.Is(test.err, test.err.Errno) {
			t.Errorf("%v doesn't wrap its errno", test.err)
		}
	}
	if !errors.Is(ErrUnavailable, errors.ErrUnsupported) {
		t.Error("ErrUnavailable should match errors.ErrUnsupported")
	}
}
