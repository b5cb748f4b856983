package bench

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
)

// BenchmarkNative calls helpers of bpfjit's own from a program and comes back:
// as native code, by an exit to the same Go function, and interpreted.
func BenchmarkNative(b *testing.B) {
	for _, helper := range []asm.BuiltinFunc{asm.FnMapLookupElem, asm.FnGetSmpProcessorId} {
		for _, by := range []string{"native", "exit", "interp"} {
			b.Run(fmt.Sprintf("helper=%v/by=%s", helper, by), func(b *testing.B) {
				opts := &bpfjit.Options{Engine: bpfjit.EngineJIT}
				number := helper
				switch by {
				case "interp":
					opts.Engine = bpfjit.EngineInterpreter
				case "exit": // by a number that native code doesn't know
					number = 1000
					opts.Helpers = map[asm.BuiltinFunc]bpfjit.HelperFunc{1000: goHelper(helper)}
				}
				p, err := bpfjit.Load(caller(number), "caller", opts)
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				in, err := p.NewInstance()
				if err != nil {
					b.Fatal(err)
				}
				defer in.Close()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := in.Run(nil); err != nil {
						b.Fatal(err)
					}
				}
				perCall(b)
			})
		}
	}
}

// goHelper is what bpfjit's own helper does.
func goHelper(number asm.BuiltinFunc) bpfjit.HelperFunc {
	if number == asm.FnGetSmpProcessorId {
		return func(e abi.Env, _, _, _, _, _ uint64) (uint64, error) { return uint64(e.CPU()), nil }
	}
	return func(e abi.Env, handle, addr, _, _, _ uint64) (uint64, error) {
		m := e.Map(handle)
		key, err := e.Bytes(addr, uint64(m.KeySize()))
		if err != nil {
			return 0, err
		}
		value, _ := m.Lookup(key)
		return value, nil
	}
}

// caller is an object with a program that calls a helper with a map and the
// address of a key.
func caller(number asm.BuiltinFunc) *ebpf.CollectionSpec {
	insns := asm.Instructions{
		asm.Mov.Imm(asm.R6, calls).WithSymbol("caller"),
		asm.StoreImm(asm.RFP, -4, 3, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference("values").WithSymbol("again"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		number.Call(),
		asm.Add.Imm(asm.R6, -1),
		asm.JNE.Imm(asm.R6, 0, "again"),
		asm.Return(),
	}
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			"values": {Name: "values", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 8},
		},
		Programs: map[string]*ebpf.ProgramSpec{"caller": {Name: "caller", Instructions: insns}},
	}
}
