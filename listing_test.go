package bpfjit_test

import (
	"bytes"
	"errors"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/jit"
)

// TestDisassemble lists a program with two functions, globals, a map and a
// loop as it runs here, interpreted, and in a kernel.
func TestDisassemble(t *testing.T) {
	opts := &bpfjit.Options{Engine: bpfjit.EngineInterpreter}
	p, err := bpfjit.Load(spec(t, globals), "add", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var b bytes.Buffer
	if err := p.Disassemble(&b); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/listings/add.interp.txt", b.String())
	if p.Code() != nil {
		t.Error("an interpreted program has code")
	}

	functions, err := p.Source().Translate()
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	for _, f := range functions {
		code, err := jit.Compile(f.Program, &jit.Linux618, &f.Function)
		if err != nil {
			t.Fatal(err)
		}
		l := bpfjit.Listing{Source: p.Source(), Program: f.Program, Code: code, Bytes: true}
		if err := l.Write(&b); err != nil {
			t.Fatal(err)
		}
	}
	golden.Compare(t, "testdata/listings/add.kernel.txt", b.String())
}

func TestDisassembleJIT(t *testing.T) {
	needJIT(t)
	p, err := bpfjit.Load(spec(t, globals), "add", &bpfjit.Options{Engine: bpfjit.EngineJIT})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var b bytes.Buffer
	if err := p.Disassemble(&b); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/listings/add.jit.txt", b.String())
}

// TestInfo checks what is told of a compilation, and the engines' choice.
func TestInfo(t *testing.T) {
	p := program(t, bpfjit.EngineInterpreter, "r0 = 1\nexit")
	if diff := cmp.Diff(bpfjit.Info{Engine: bpfjit.EngineInterpreter, Insns: 2}, p.Info()); diff != "" {
		t.Errorf("interpreter (-want +got):\n%s", diff)
	}
	needJIT(t)
	var raw bytes.Buffer
	p = program(t, bpfjit.EngineAuto, "r0 = 1\n if r0 == 1 goto +1\n r0 /= r1\n exit", func(o *bpfjit.Options) {
		o.Dump = &raw
		o.Rand = bytes.NewReader([]byte{1, 2, 3, 4})
	})
	info := p.Info()
	code := p.Code()
	switch {
	case info.Engine != bpfjit.EngineJIT, info.Reason != nil, info.Insns != 4, info.Lowered <= 5,
		info.Code != len(code), info.Code < 20, info.Image < info.Code+info.Start, info.Start < 0,
		len(info.Passes) < 2, info.Passes[len(info.Passes)-1] > info.Code, info.Blinded:
		t.Errorf("%+v", info)
	}
	form := regexp.MustCompile(`^flen=\d+ proglen=\d+ pass=\d+ image=[0-9a-f]{16} from=\S+ pid=\d+\n` +
		`(JIT code: [0-9a-f]{8}:( [0-9a-f]{2}){1,16}\n)+$`)
	if !form.Match(raw.Bytes()) {
		t.Errorf("raw dump:\n%s", raw.Bytes())
	}
	again := program(t, bpfjit.EngineJIT, "r0 = 1\n if r0 == 1 goto +1\n r0 /= r1\n exit", func(o *bpfjit.Options) {
		o.Rand = bytes.NewReader([]byte{1, 2, 3, 4})
	})
	if !bytes.Equal(again.Code(), code) || again.Info().Start != info.Start {
		t.Error("the same random bytes gave other code, or another start")
	}
	broken := errors.New("broken")
	_, err := bpfjit.CompileBytes(assemble(t, "exit"), &bpfjit.Options{Engine: bpfjit.EngineJIT, Rand: reader{broken}})
	if !errors.Is(err, broken) {
		t.Errorf("a source of random bytes that fails: %v", err)
	}
}

type reader struct{ err error }

func (r reader) Read([]byte) (int, error) { return 0, r.err }

// TestDumpFails: a program whose code can't be written isn't made, whatever the
// engine that makes code. An interpreted one has none.
func TestDumpFails(t *testing.T) {
	needJIT(t)
	region, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("the disk is full")
	for engine, want := range map[bpfjit.Engine]error{
		bpfjit.EngineAuto: full, bpfjit.EngineJIT: full, bpfjit.EngineInterpreter: nil,
	} {
		before := region.Stats().Images
		p, err := bpfjit.CompileBytes(assemble(t, "r0 = 1\nexit"), &bpfjit.Options{Engine: engine, Dump: writer{full}})
		if !errors.Is(err, want) || (p == nil) != (want != nil) {
			t.Errorf("%v: %v", engine, err)
		}
		if err == nil {
			p.Close()
		}
		if images := region.Stats().Images; images != before {
			t.Errorf("%v: %d images more than before", engine, images-before)
		}
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

// TestWriteRaw pins the form that the kernel's tools read.
func TestWriteRaw(t *testing.T) {
	var b bytes.Buffer
	code := bytes.Repeat([]byte{0xab}, 18)
	if err := bpfjit.WriteRaw(&b, 4, 0xffffffffc0001044, []int{30, 20, 18}, code); err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`from=.*`).ReplaceAllString(b.String(), "from=X pid=N")
	want := `flen=4 proglen=18 pass=3 image=ffffffffc0001044 from=X pid=N
JIT code: 00000000: ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab
JIT code: 00000010: ab ab
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestEngineText reads and writes the names of engines.
func TestEngineText(t *testing.T) {
	for e, name := range map[bpfjit.Engine]string{bpfjit.EngineAuto: "auto", bpfjit.EngineJIT: "jit", bpfjit.EngineInterpreter: "interp"} {
		var back bpfjit.Engine
		text, err := e.MarshalText()
		if err != nil || string(text) != name || e.String() != name || back.UnmarshalText(text) != nil || back != e {
			t.Errorf("%v: %q, %v, %v", e, text, err, back)
		}
	}
	bad := bpfjit.Engine(9)
	if _, err := bad.MarshalText(); err == nil || bad.String() != "Engine(9)" || bad.UnmarshalText([]byte("fast")) == nil {
		t.Errorf("%v, %v", bad, err)
	}
}
