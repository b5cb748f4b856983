package main

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit"
)

// TestManyElements: of a map that has more elements than are to be shown, the first
// ones are, and the report says so.
func TestManyElements(t *testing.T) {
	const entries = 10
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: entries}},
		Programs: map[string]*ebpf.ProgramSpec{"p": {Name: "p", Type: ebpf.XDP, Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, 0).WithReference("m"), asm.Mov.Imm(asm.R0, 0), asm.Return(),
		}}},
	}
	prog, err := bpfjit.Load(spec, "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	for i := range uint32(entries) {
		b := binary.LittleEndian.AppendUint32(nil, i)
		if err := prog.Map("m").Update(b, b, 0); err != nil {
			t.Fatal(err)
		}
	}
	for limit, more := range map[int]bool{0: true, 3: true, entries - 1: true, entries: false, 1000: false} {
		r := newRunReport(prog, "object")
		r.maps(prog, limit)
		var b strings.Builder
		if err := r.write(&b); err != nil {
			t.Fatal(err)
		}
		said := strings.HasSuffix(b.String(), "\nm has more elements, see -elements\n")
		if len(r.Maps) != min(limit, entries) || (len(r.More) == 1) != more || said != more {
			t.Errorf("%d of %d: %d shown, more: %v\n%s", limit, entries, len(r.Maps), r.More, b.String())
		}
	}
}
