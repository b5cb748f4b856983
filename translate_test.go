package bpfjit_test

import (
	"os"
	"testing"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
)

// translate returns the functions of a program in testdata.
func translate(t *testing.T, object, program string) []bpfjit.Translated {
	t.Helper()
	f, err := os.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spec, err := bpfjit.ReadSpec(f)
	if err != nil {
		t.Fatal(err)
	}
	src, err := bpfjit.SourceOf(spec, program)
	if err != nil {
		t.Fatal(err)
	}
	list, err := src.Translate()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestTranslateCalls: a call has the callee's number, which blinding must not
// take for a distance.
func TestTranslateCalls(t *testing.T) {
	calls := func(p *bpf.Program) (list []int32) {
		for slot, in := range p.Insns {
			if text := bpf.Text(in); len(text) > 7 && text[:7] == "call pc" {
				if d, ok := bpf.Distance(in); ok {
					t.Errorf("slot %d: %s has the distance %d", slot, text, d)
				}
				list = append(list, in.Imm)
			}
		}
		return list
	}
	n := 0
	for _, f := range translate(t, "testdata/globals.bpf.o", "primes") {
		plain := calls(f.Program)
		hidden, err := blind.Rewrite(f.Program, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, callee := range calls(hidden) {
			n++
			if callee != plain[i] {
				t.Errorf("%s: call %d of function %d leads to %d when blinded", f.Name, i, plain[i], callee)
			}
		}
	}
	if n != 5 {
		t.Errorf("%d calls, want 5", n)
	}
}

// TestTranslateTailCalls: the JIT has an opcode for tail calls, and wants to
// know which functions they can be reached from.
func TestTranslateTailCalls(t *testing.T) {
	list := translate(t, "testdata/unsupported.bpf.o", "tail")
	if f := list[0]; !f.Function.TailCallReachable || bpf.Text(f.Program.Insns[3]) != "tail_call 0" {
		t.Errorf("reachable %v, %s", f.Function.TailCallReachable, bpf.Text(f.Program.Insns[3]))
	}
	for _, f := range translate(t, "testdata/globals.bpf.o", "primes") {
		if f.Function.TailCallReachable {
			t.Errorf("%s: no tail call can be reached", f.Name)
		}
	}
}
