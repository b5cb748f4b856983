package main

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/oracle"
)

// needKernel is kernel.Require without the lock, which WithHarden2 takes.
func needKernel(t *testing.T) {
	t.Helper()
	if err := kernel.Available(); err != nil && os.Getenv(kernel.EnvRequire) == "1" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("needs a live kernel: %v", err)
	}
}

// TestPredictKernel: the running kernel takes every program of the object
// plain, with the code foreseen for its return thunk, or none, and does
// hardened what was foreseen. All jumps are forward: there is no danger in
// trying.
func TestPredictKernel(t *testing.T) {
	needKernel(t)
	o, err := openObject(hardenObject)
	if err != nil {
		t.Fatal(err)
	}
	constants, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	p := predictor{seeds: 8, profile: oracle.Profile(constants)}
	report, err := p.object(hardenObject)
	if err != nil || report.Loads || len(report.Programs) != 3 {
		t.Fatalf("%+v, %v", report, err)
	}
	want := map[string]fate{"edge": verdictLoads, "over": verdictHardened, "full": verdictHardened}
	for _, p := range report.Programs {
		if p.Verdict != want[p.Name] {
			t.Errorf("%s: %s (%s), want %s", p.Name, p.Verdict, p.Reason, want[p.Name])
		}
		_, loaded, err := o.kernel(p.Name)
		if err != nil {
			t.Fatalf("%s, plain: %v", p.Name, err)
		}
		info, err := loaded.Info()
		loaded.Close()
		if err != nil {
			t.Fatal(err)
		}
		if f := p.Functions[0]; len(info.Jited) != f.Code || len(info.Xlated) != f.Slots {
			t.Errorf("%s, plain: %d bytes of %d slots, foreseen %d of %d", p.Name, len(info.Jited), len(info.Xlated), f.Code, f.Slots)
		}
		t.Logf("%s: foreseen: %s; plain, the kernel loads it: %d slots, %d bytes", p.Name, p.Verdict, len(info.Xlated), len(info.Jited))
	}
	kernel.WithHarden2(t, func() {
		for _, p := range report.Programs {
			_, loaded, err := o.kernel(p.Name)
			var le *kernel.LoadError
			switch {
			case err == nil:
				info, err := loaded.Info()
				loaded.Close()
				if err != nil {
					t.Error(err)
				} else if h := p.Functions[0].Hardened; p.Verdict != verdictLoads || len(info.Xlated) != h.Slots {
					t.Errorf("%s, hardened: it loads with %d slots, foreseen: %s, %d slots", p.Name, len(info.Xlated), p.Verdict, h.Slots)
				} else {
					t.Logf("%s: hardened, the kernel loads it: %d slots, %d bytes; foreseen %d, %v", p.Name, len(info.Xlated), len(info.Jited), h.Slots, h.Code)
				}
			case errors.As(err, &le) && le.Errno == kernel.JITErrno && le.ByJIT():
				t.Logf("%s: hardened, %v", p.Name, err)
				if p.Verdict != verdictHardened {
					t.Errorf("%s, hardened: errno 524, foreseen: %s", p.Name, p.Verdict)
				}
			default:
				t.Errorf("%s, hardened: %v", p.Name, err)
			}
		}
	})
}

// TestPredictLive: asked for the objects of the repository, the kernel made
// just the code that is foreseen from its own instructions.
func TestPredictLive(t *testing.T) {
	needKernel(t)
	functions, size := 0, 0
	for _, object := range []string{"globals", "skb", "harden"} {
		r, _ := predicted(t, "-live", "-seeds", "2", "../../testdata/"+object+".bpf.o")
		for _, p := range r.Programs {
			if p.Kernel != "loaded" {
				t.Errorf("%s: %s: %s", object, p.Name, p.Kernel)
			}
			for _, f := range p.Functions {
				if !f.Kernel.Equal || f.Kernel.Code != f.Code {
					t.Errorf("%s: %s: %d bytes, the kernel has %d", object, f.Name, f.Code, f.Kernel.Code)
				}
				functions++
				size += f.Code
			}
		}
	}
	t.Logf("%d functions of %d bytes are the kernel's", functions, size)
	if functions < 10 {
		t.Errorf("only %d functions", functions)
	}
}

// TestOptmem attaches the longest filters to a socket that are foreseen to
// fit, and the shortest ones that are not.
func TestOptmem(t *testing.T) {
	needKernel(t)
	limit := sysctl{path: "/proc/sys/net/core/optmem_max"}
	if err := limit.Set("here"); err != nil {
		t.Fatal(err)
	}
	longest := 0
	for fits(longest+1, limit.value) {
		longest++
	}
	if longest > 1<<18 {
		t.Skipf("optmem_max is %d", limit.value)
	}
	for _, slots := range []int{2, longest, longest + 1} {
		insns := make([]bpf.Insn, slots)
		for i := range insns {
			insns[i] = bpf.Insn{Op: 0xbf, Regs: 0x10} // r0 = r1, which hardening doesn't change
		}
		insns[slots-2] = bpf.Insn{Op: 0xb7} // r0 = 0: one instruction too
		insns[slots-1] = bpf.Insn{Op: 0x95}
		loaded, err := kernel.Load(&kernel.Spec{Type: kernel.SocketFilter, Insns: insns})
		if err != nil {
			t.Fatal(err)
		}
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, loaded.FD())
		unix.Close(s)
		loaded.Close()
		if want := fits(slots, limit.value); (err == nil) != want || err != nil && err != unix.ENOMEM {
			t.Errorf("%d slots: %v, foreseen that it fits: %v", slots, err, want)
		}
	}
}

// fits is what predict says about a filter of so many slots.
func fits(slots, limit int) bool {
	p := predictProgram{Functions: []*predictFunction{{Slots: slots}}}
	p.attach(limit, true)
	return p.Optmem.Within
}
