package corpus

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
)

func TestKernels(t *testing.T) {
	programs, err := Kernels()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(programs) != 8 {
		t.Errorf("%d kernels, want 8", len(programs))
	}
	for _, p := range programs {
		for at, i := range p.Insns {
			if i.Op != abi.OpCall {
				continue
			}
			if to := at + 1 + int(i.Imm); i.Src() != abi.CallLocal || to <= at || to >= len(p.Insns) {
				t.Errorf("%s: slot %d calls slot %d of %d", p.Name, at, to, len(p.Insns))
			}
		}
		if i := p.Insns[len(p.Insns)-1]; i.Op != abi.OpExit && i.Op != abi.OpJa {
			t.Errorf("%s ends with %+v", p.Name, i)
		}
	}
}

func TestShared(t *testing.T) {
	programs, left, err := Shared()
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("BPFJIT_REQUIRE_SHARED") != "1" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if len(programs) != 200 || Slots(programs) != 188807 || len(left) != 8 {
		t.Errorf("%d programs, %d slots, %d left out", len(programs), Slots(programs), len(left))
	}
	t.Logf("left out for their packet loads: %s", strings.Join(left, ", "))
}
