package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bench/internal/cgocall"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/image"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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
	for _, engine := range []bpfjit.Engine{bpfjit.EngineJIT, bpfjit.EngineInterpreter} {
		p := program(b, engine, "exit")
		in, err := p.NewInstance()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { in.Close() })
		b.Run("engine="+engine.String()+"/via=instance", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := in.Run(nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("engine="+engine.String()+"/via=program", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Run(nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		mem := make([]byte, 64)
		ctx, cancel := context.WithCancel(b.Context())
		b.Cleanup(cancel)
		for _, x := range []struct {
			name string
			run  func() (uint64, error)
		}{
			{"via=instance/mem=64", func() (uint64, error) { return in.Run(mem) }},
			{"via=instance/context=cancel", func() (uint64, error) { return in.RunContext(ctx, nil) }},
			{"via=instance/packet=64", func() (uint64, error) {
				r0, _, err := in.RunPacket(mem)
				return r0, err
			}},
			{"via=instance/packet=64/context=background", func() (uint64, error) {
				r0, _, err := in.RunPacketContext(context.Background(), mem)
				return r0, err
			}},
			{"via=instance/packet=64/context=cancel", func() (uint64, error) {
				r0, _, err := in.RunPacketContext(ctx, mem)
				return r0, err
			}},
			{"via=program/mem=64", func() (uint64, error) { return p.Run(mem) }},
		} {
			b.Run("engine="+engine.String()+"/"+x.name, func(b *testing.B) {
				if _, err := x.run(); err != nil { // memory is made
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := x.run(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		// A goroutine that finds another one before it each time.
		b.Run("engine="+engine.String()+"/via=instance/by=two", func(b *testing.B) {
			const rounds = 100 // by each
			hand, back := make(chan bool), make(chan bool)
			runs := func() {
				for range rounds {
					if _, err := in.Run(nil); err != nil {
						b.Error(err)
					}
				}
			}
			go func() {
				defer close(back)
				for range hand {
					runs()
					back <- true
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				runs()
				hand <- true
				<-back
			}
			close(hand)
			<-back
			b.ReportMetric(float64(b.Elapsed())/float64(b.N*2*rounds), "ns/run")
		})
	}
}

// program compiles one line of BPF an instruction.
func program(b *testing.B, engine bpfjit.Engine, text string) *bpfjit.Program {
	insns, err := bpf.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	p, err := bpfjit.CompileSource(&bpfjit.Source{Program: &bpf.Program{Insns: insns}}, &bpfjit.Options{
		Engine: engine,
		Type:   ebpf.XDP,
		Helpers: map[asm.BuiltinFunc]bpfjit.HelperFunc{
			1000: func(_ abi.Env, r1, _, _, _, _ uint64) (uint64, error) { return goCall(r1), nil },
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.Error(err)
		}
	})
	return p
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
	for _, engine := range []bpfjit.Engine{bpfjit.EngineJIT, bpfjit.EngineInterpreter} {
		b.Run("engine="+engine.String(), func(b *testing.B) {
			in, err := program(b, engine, fmt.Sprintf("r6 = %d\nr1 = r6\ncall 1000\nr6 += -1\nif r6 != 0 goto -4\nexit", calls)).NewInstance()
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

// tiny is the code of a program of a few instructions: xor eax, eax; ret.
var tiny = []byte{0x31, 0xc0, 0xc3}

// region is where programs are published.
func region(b *testing.B) *image.Region {
	r, err := image.Default()
	if errors.Is(err, errors.ErrUnsupported) {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkPublish places tiny programs and frees them again: so many are live at
// once. The system call that ends the quarantine counts as freeing.
func BenchmarkPublish(b *testing.B) {
	for _, live := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			region := region(b)
			images := make([]*image.Image, live)
			clock := tick()
			var publish, free time.Duration
			var err error
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				for i := range images {
					if images[i], err = region.Publish(tiny, nil, nil); err != nil {
						b.Fatal(err)
					}
				}
				published := time.Now()
				for _, im := range images {
					im.Free()
				}
				publish += published.Sub(began) - clock
				free += time.Since(published) - clock
			}
			n := float64(b.N * live)
			b.ReportMetric(float64(publish)/n, "ns/publish")
			b.ReportMetric(float64(free)/n, "ns/free")
			b.ReportMetric(float64(images[0].Size()), "B/image")
		})
	}
	// The same by all processors at once, and how long a pair of both takes each.
	for _, live := range []int{1, 100} {
		b.Run(fmt.Sprintf("live=%d/by=all", live), func(b *testing.B) {
			region := region(b)
			b.RunParallel(func(pb *testing.PB) {
				images := make([]*image.Image, live)
				for pb.Next() {
					var err error
					for i := range images {
						if images[i], err = region.Publish(tiny, nil, nil); err != nil {
							b.Error(err)
							return
						}
					}
					for _, im := range images {
						im.Free()
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed())*float64(runtime.GOMAXPROCS(0))/float64(b.N*live), "ns/pair")
		})
	}
}

// tick returns what a look at the clock takes, at its least.
func tick() time.Duration {
	least := time.Hour
	for range 100 {
		began := time.Now()
		end := began
		for range 100 {
			end = time.Now()
		}
		least = min(least, end.Sub(began)/100)
	}
	return least
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
