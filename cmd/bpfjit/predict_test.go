package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/jit"
)

// hardenObject has programs at the limits of blinding.
var hardenObject = filepath.Join("..", "..", "testdata", "harden.bpf.o")

// predicted runs predict -json on an object and returns the exit code too.
func predicted(t *testing.T, args ...string) (*predictReport, int) {
	t.Helper()
	var out, errs bytes.Buffer
	exit := run(nil, &out, &errs, append([]string{"predict", "-json"}, args...))
	if errs.Len() > 0 {
		t.Fatalf("predict %v: %s", args, &errs)
	}
	var r predictReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return &r, exit
}

// fateOf predicts instructions that are no object.
func fateOf(t *testing.T, insns []bpf.Insn) *predictProgram {
	t.Helper()
	p := predictor{seeds: 2, profile: &jit.Linux618}
	src := &bpfjit.Source{Name: "test", Program: &bpf.Program{Insns: insns}}
	return p.predict(nil, "SocketFilter", "test", func() (*bpfjit.Source, error) { return src, nil })
}

// TestPredictBack: jumps back that end up before -32768 are wrapped round by
// kernels with CVE-2026-98816 where the constant of the jump itself does it,
// and refused otherwise. Such programs are never loaded here.
func TestPredictBack(t *testing.T) {
	const (
		constant = "if r1 == 7 goto"
		register = "if r1 == r2 goto"
	)
	for _, tt := range []struct {
		jump      string
		off       int
		constants int // behind the target, 3 slots each when hidden
		want      fate
		lands     int
	}{
		{constant, -32766, 0, verdictLoads, -32768},
		{constant, -32767, 0, verdictDanger, -32769},
		{constant, -32768, 0, verdictDanger, -32770},
		{register, -32768, 0, verdictLoads, -32768},
		{constant, -32764, 1, verdictLoads, -32768},
		{constant, -32765, 1, verdictDanger, -32769},
		{constant, -32766, 1, verdictDanger, -32770},
		{constant, -32767, 1, verdictHardened, -32771},
		{register, -32766, 1, verdictLoads, -32768},
		{register, -32767, 1, verdictHardened, -32769},
		{register, -32768, 1, verdictHardened, -32770},
	} {
		jump := bpf.Insn{Op: 0x15, Regs: 0x01, Off: int16(tt.off), Imm: 7}
		if tt.jump == register {
			jump = bpf.Insn{Op: 0x1d, Regs: 0x21, Off: int16(tt.off)}
		}
		insns := slices.Concat(
			slices.Repeat([]bpf.Insn{{Op: 0x07, Imm: 9}}, tt.constants),
			slices.Repeat([]bpf.Insn{{Op: 0x0f}}, -tt.off-1-tt.constants),
			[]bpf.Insn{jump, {Op: 0x95}})
		r := fateOf(t, insns)
		if back := r.Functions[0].Hardened.Back; r.Verdict != tt.want || back.Distance != tt.lands || back.Room != tt.lands+32768 {
			t.Errorf("%s %d over %d constants: %s (%s), leads %d; want %s, %d", tt.jump, tt.off, tt.constants, r.Verdict, r.Reason, back.Distance, tt.want, tt.lands)
		}
		if r.Verdict != verdictLoads && !strings.Contains(r.Reason, tt.jump) {
			t.Errorf("the reason names no jump: %s", r.Reason)
		}
	}
}

// TestPredictUnsettled: code that never settles, or is padded until it does.
func TestPredictUnsettled(t *testing.T) {
	for name, insns := range map[string][]bpf.Insn{"restless": testprog.Restless(), "shifting": testprog.Shifting()} {
		r := fateOf(t, insns)
		if r.Verdict != verdictUnsettled || !strings.Contains(r.Reason, "doesn't settle") || r.Functions[0].Code != 0 {
			t.Errorf("%s: %s (%s)", name, r.Verdict, r.Reason)
		}
	}
	r := fateOf(t, testprog.Ladder(40))
	if f := r.Functions[0]; r.Verdict != verdictLoads || len(f.Passes) != 17 || f.Padding == 0 || f.Code != f.Passes[16] {
		t.Errorf("ladder: %s (%s), %+v", r.Verdict, r.Reason, f.codeSize)
	}
}

func TestImageSize(t *testing.T) {
	for _, tt := range []struct{ code, faults, want int }{
		{23, 0, 64}, {40, 0, 64}, {41, 0, 128}, {104, 0, 128}, {105, 0, 192},
		{27, 1, 64}, {28, 1, 64}, {29, 1, 128}, {100, 10, 256}, // 28+12+24 = 64, 100+120+24 = 244
	} {
		if got := imageSize(tt.code, tt.faults); got != tt.want {
			t.Errorf("%d bytes, %d entries: %d, want %d", tt.code, tt.faults, got, tt.want)
		}
	}
}

// TestPredictExit: 0, 1 and 2 are what a build server goes by.
func TestPredictExit(t *testing.T) {
	for _, tt := range []struct {
		args string
		want int
	}{
		{"", 0},
		{"-prog edge HARDEN", 0},
		{"-prog over HARDEN", 1},
		{"-prog over -plain HARDEN", 0},
		{"-prog edge -plain -optmem_max 87505 HARDEN", 0}, // 8*10926 + 96 = 87504
		{"-prog edge -plain -optmem_max 87504 HARDEN", 1},
		{"-prog edge -optmem_max 262273 HARDEN", 0}, // 8*32772 + 96 = 262272
		{"-prog edge -optmem_max 262272 HARDEN", 1},
		{"-plain -bpf_jit_limit 229760 HARDEN", 0}, // 65600 + 98560 + 65600
		{"-plain -bpf_jit_limit 229759 HARDEN", 1},
		{"-prog none HARDEN", 1},
		{"nowhere.o", 1},
		{"-prog edge HARDEN nowhere.o", 1},
		{"-seeds 0", 2},
		{"-optmem_max much", 2},
		{"-speed", 2},
	} {
		var out, errs bytes.Buffer
		args := strings.Fields("predict " + strings.ReplaceAll(tt.args, "HARDEN", hardenObject))
		if got := run(nil, &out, &errs, args); got != tt.want {
			t.Errorf("predict %s: exit %d, want %d\n%s%s", tt.args, got, tt.want, &out, &errs)
		}
	}
}

// TestPredictSeeds: the same seeds give the same report, and more of them a
// wider one.
func TestPredictSeeds(t *testing.T) {
	a, _ := predicted(t, "-seeds", "3")
	b, _ := predicted(t, "-seeds", "3")
	more, _ := predicted(t, "-seeds", "40")
	x, y, z := a.Programs[0].Functions[0].Hardened.Code, b.Programs[0].Functions[0].Hardened.Code, more.Programs[0].Functions[0].Hardened.Code
	if *x != *y || z.Min > x.Min || z.Max < x.Max || z.Min == z.Max {
		t.Errorf("sizes of 3 seeds %v, of the same %v, of 40 %v", x, y, z)
	}
}

// TestProgress: a terminal sees a line when the work is long, and nothing of
// it afterwards; anything else sees nothing.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	var p progress
	p.start(&out)
	p.next = time.Time{}
	p.step("seed %d", 1)
	p.clear()
	if out.Len() > 0 {
		t.Errorf("not on a terminal: %q", &out)
	}
	p.w, p.label = &out, "object"
	p.next = time.Now().Add(time.Hour)
	p.step("seed %d", 2) // too soon
	p.next = time.Time{}
	p.step("seed %d", 3)
	p.next = time.Now().Add(time.Hour)
	p.step("seed %d", 4)
	p.clear()
	p.clear()
	if got, want := out.String(), "\r\x1b[Kobject: seed 3\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
