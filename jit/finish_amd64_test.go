//go:build amd64 && !purego

package jit

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/encoder"
	"github.com/bpfjit/bpfjit/internal/generated"
	"github.com/bpfjit/bpfjit/internal/mixed"
)

// TestFinishOffsets pins the offsets in the generator of finishAVO to the structs.
func TestFinishOffsets(t *testing.T) {
	var (
		p  passJob
		c  Code
		f  Func
		fr frame
		r  Reloc
		ch charge
		m  encoder.Mark
		s  []byte
	)
	want := map[string]uintptr{
		"jobMarks": unsafe.Offsetof(p.marks), "jobCount": unsafe.Offsetof(p.count), "jobOthers": unsafe.Offsetof(p.others),
		"jobNoted": unsafe.Offsetof(p.noted), "jobCharges": unsafe.Offsetof(p.charges), "jobCharged": unsafe.Offsetof(p.charged),
		"jobFirstExit": unsafe.Offsetof(p.firstExit), "jobExitOp": unsafe.Offsetof(p.exitOp),

		"codeBytes": unsafe.Offsetof(c.Bytes), "codeEnds": unsafe.Offsetof(c.Ends), "codeRelocs": unsafe.Offsetof(c.Relocs),
		"funcStart": unsafe.Offsetof(f.Start), "funcCold": unsafe.Offsetof(f.Cold),
		"frameEpilogue": unsafe.Offsetof(fr.epilogue), "jobFrame": unsafe.Offsetof(p.frame),
		"jobWritten": unsafe.Offsetof(p.done) + unsafe.Offsetof(p.done.others), "jobPaid": unsafe.Offsetof(p.done) + unsafe.Offsetof(p.done.charges),
		"sliceLen": unsafe.Sizeof(s) / 3,

		"relocSlot": unsafe.Offsetof(r.Slot), "relocOffset": unsafe.Offsetof(r.Offset), "relocKind": unsafe.Offsetof(r.Kind),
		"relocShift": 4, "chargeMark": unsafe.Offsetof(ch.mark), "chargeN": unsafe.Offsetof(ch.n),
		"chargeSize": unsafe.Sizeof(ch), "markSlot": unsafe.Offsetof(m.Slot), "markSize": unsafe.Sizeof(m),

		"usualEpilogue": usualEpilogue, "plainSlot": plainSlot, "group": group, "plainShift": plainShift,
		"callOp": opCall, "opJbLong": opJbLong, "longJcc": encoder.LongJcc, "coldSize": coldSize, "coldAsks": coldAsks,
		"coldBack": coldBack, "vector": 16,
	}
	if unsafe.Sizeof(r) != 1<<4 {
		t.Errorf("a relocation has %d bytes", unsafe.Sizeof(r))
	}
	got, err := generated.Constants("../gen/asm/finish/finish_asm.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what structs have and the generator has (-want +got):\n%s", diff)
	}
}

// TestFinish compares finishAVO with its Go twin: on functions that are finished over
// again, in parts, over code that is something else.
func TestFinish(t *testing.T) {
	type finished struct {
		Bytes  []byte
		Relocs []Reloc
		Done   []done
	}
	finish := func(code *Code, by func(*compiler, *Code, *Func, int)) (r finished) {
		c, f := code.own, &code.Funcs[0]
		again := *code
		n, others := len(code.Bytes), len(c.others)
		bytes, relocs := make([]byte, n+encoder.Slack), make([]Reloc, others+group+3)
		again.Bytes, again.Relocs = bytes[:n], relocs[:1:others+group+1]
		for i, b := range code.Bytes {
			again.Bytes[i] = b ^ 0x5a
		}
		c.job.done = done{}
		for _, stop := range []int{0, 1, c.job.count / 3, c.job.count} {
			by(c, &again, f, stop)
			r.Done = append(r.Done, c.job.done)
		}
		if bytes = bytes[n+coldSize:]; !slices.Equal(bytes, make([]byte, len(bytes))) {
			t.Errorf("behind the code it left % x", bytes)
		}
		if relocs = relocs[others+group+1:]; relocs[0] != (Reloc{}) || relocs[1] != (Reloc{}) {
			t.Errorf("behind the relocations it left %+v", relocs)
		}
		r.Bytes, r.Relocs = again.Bytes, again.Relocs
		return r
	}
	thunk, plain := Linux618, Linux618
	thunk.ReturnThunk, plain.ReturnThunk = true, false
	calls, charges := 0, 0
	for i, n := range []int{2, 7, 20, 100, 500, 3000, 20_000} {
		insns := mixed.Real().Program(uint64(i), n)
		for _, profile := range []*Profile{&plain, &thunk, &Linux513, &Cage} {
			code, p := new(Code), &bpf.Program{Insns: insns}
			if profile == &Cage {
				p = charged(insns)
			}
			for range 2 { // the second time it keeps its compiler
				compile := func() error { return code.Compile(p, profile, &Function{StackDepth: 8 * i}) }
				if profile == &Cage {
					compile = func() error { return code.CompileFunctions(p, []bpf.Func{{End: len(insns)}}, profile) }
				}
				if err := compile(); err != nil {
					t.Fatal(err)
				}
			}
			want, got := finish(code, (*compiler).finishGeneric), finish(code, (*compiler).finishJoined)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(done{})); diff != "" {
				t.Fatalf("%d slots: Go and assembly differ (-go +asm):\n%s", n, diff)
			}
			calls, charges = calls+len(got.Relocs)-1, charges+len(code.own.charges)
		}
	}
	t.Logf("%d calls, %d charges", calls, charges)
	if calls < 1000 || charges < 300 {
		t.Error("too few of one kind")
	}
}
