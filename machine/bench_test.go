//go:build linux && amd64 && !purego

package machine

import (
	"fmt"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/image"
)

// repeat is a program that runs body R1 times, at least once.
func repeat(t testing.TB, body string) []byte {
	n := len(assemble(t, body))
	return assemble(t,
		"53       ; push rbx",
		"48 89 fb ; mov rbx, rdi",
		body,
		"48 83 eb 01 ; sub rbx, 0x1",
		"0f 85 "+word(-n-10)+" ; (jnz to the body)",
		"5b       ; pop rbx",
		"c3       ; ret")
}

// BenchmarkRun is a run of an empty program, and a Go call beside it.
func BenchmarkRun(b *testing.B) {
	b.Run("kind=go-call", func(b *testing.B) {
		for b.Loop() {
			deref(&b.N)
		}
	})
	b.Run("kind=empty", func(b *testing.B) {
		g := newRig(b)
		im := load(b, assemble(b, charge(2), "31 c0 ; xor eax, eax", "c3 ; ret"))
		in, out := input{}, Result{}
		b.ReportAllocs()
		for b.Loop() {
			once(g.inst, im, &in, &out)
		}
	})
}

// BenchmarkExit is the way out of code and back, by kind of exit.
func BenchmarkExit(b *testing.B) {
	helpers := NewHelpers(map[uint32]abi.HelperFunc{1: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { return r1, nil }})
	faulty := "31 ff ; xor edi, edi\n" + load64(0)
	for _, x := range []struct {
		kind, body string
		entry      *image.Entry
	}{
		{"none", "90 ; nop", nil},
		{"helper", callHelper(1), nil},
		{"slice", "45 31 c9 ; xor r9d, r9d\n" + charge(1), nil},
		{"fixup", faulty, &image.Entry{}},
	} {
		b.Run(fmt.Sprintf("kind=%s", x.kind), func(b *testing.B) {
			g := newRig(b)
			var entries []image.Entry
			if x.entry != nil {
				const at = 4 + 2 + 3 // push, mov, xor, mov
				entries = []image.Entry{image.NewEntry(at, 8, abi.RAX)}
			}
			im := load(b, repeat(b, x.body), entries...)
			in, out := input{R1: uint64(b.N), Input: Input{Budget: -1, Helpers: helpers}}, Result{}
			b.ResetTimer()
			if once(g.inst, im, &in, &out); out.Stop != abi.StopExit {
				b.Fatalf("%+v", out)
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		if err := Check(); err != nil {
			b.Fatal(err)
		}
	}
}
