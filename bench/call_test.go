package bench

import (
	"context"
	"testing"

	"github.com/bpfjit/bpfjit/bench/internal/cgocall"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

//go:noinline
func goCall(x uint64) uint64 { return x }

// BenchmarkCall calls an empty program and comes back.
func BenchmarkCall(b *testing.B) {
	b.Run("engine=go", func(b *testing.B) {
		b.ReportAllocs()
		var x uint64
		for b.Loop() {
			x = goCall(x)
		}
	})
	b.Run("engine=cgo", func(b *testing.B) {
		if !cgocall.Available {
			b.Skip("built without cgo")
		}
		b.ReportAllocs()
		for b.Loop() {
			cgocall.Call()
		}
	})
	b.Run("engine=wazero", func(b *testing.B) {
		f := wasm(b, "empty")
		stack := []uint64{0}
		b.ReportAllocs()
		for b.Loop() {
			if err := f.CallWithStack(b.Context(), stack); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// calls is how often a program calls its helper in one run, so that the way
// into the program and back doesn't count.
const calls = 1000

// BenchmarkHelper calls a Go function from a program and comes back.
func BenchmarkHelper(b *testing.B) {
	b.Run("engine=wazero", func(b *testing.B) {
		f := wasm(b, "loop")
		stack := []uint64{calls}
		b.ReportAllocs()
		for b.Loop() {
			stack[0] = calls
			if err := f.CallWithStack(b.Context(), stack); err != nil {
				b.Fatal(err)
			}
		}
		perCall(b)
	})
}

func perCall(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/calls, "ns/call")
}

// wasmModule has two functions; section by section:
//
//	(import "env" "id" (func $id (param i64) (result i64)))
//	(func (export "empty") (param i64) (result i64) local.get 0)
//	(func (export "loop") (param $n i64) (result i64)
//	  loop  (local.tee $n (i64.sub (call $id (local.get $n)) 1))  br_if (!= 0)  end
//	  local.get $n)
var wasmModule = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x06\x01\x60\x01\x7e\x01\x7e" + // type 0: i64 -> i64
	"\x02\x0a\x01\x03env\x02id\x00\x00" + // function 0
	"\x03\x03\x02\x00\x00" + // functions 1 and 2
	"\x07\x10\x02\x05empty\x00\x01\x04loop\x00\x02" +
	"\x0a\x1c\x02" +
	"\x04\x00\x20\x00\x0b" +
	"\x15\x00\x03\x40\x20\x00\x10\x00\x42\x01\x7d\x22\x00\x42\x00\x52\x0d\x00\x0b\x20\x00\x0b")

// wasm instantiates wasmModule with wazero's compiler and returns a function.
func wasm(b *testing.B, name string) api.Function {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	b.Cleanup(func() {
		if err := r.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	id := api.GoFunc(func(_ context.Context, stack []uint64) { stack[0] = goCall(stack[0]) })
	i64 := []api.ValueType{api.ValueTypeI64}
	if _, err := r.NewHostModuleBuilder("env").NewFunctionBuilder().WithGoFunction(id, i64, i64).Export("id").Instantiate(ctx); err != nil {
		b.Fatal(err)
	}
	m, err := r.Instantiate(ctx, wasmModule)
	if err != nil {
		b.Fatal(err)
	}
	return m.ExportedFunction(name)
}
