package bpfjit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfjit/bpfjit"
)

// The XDP filter of the command, on a packet that is too short for it.
func ExampleLoad() {
	spec, err := ebpf.LoadCollectionSpec("cmd/bpfjit/example/filter.bpf.o")
	if err != nil {
		log.Fatal(err)
	}
	prog, err := bpfjit.Load(spec, "filter", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer prog.Close()

	verdict, _, err := prog.RunPacket(make([]byte, 10))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("verdict", verdict)
	for key, value := range prog.Map("counters").Text() {
		fmt.Println(key, value)
	}
	// Output:
	// verdict 1
	// KIND_SHORT {packets=1 bytes=10}
}

func ExampleCompile() {
	prog, err := bpfjit.Compile(asm.Instructions{
		asm.LoadMem(asm.R0, asm.R1, 0, asm.Byte),
		asm.Add.Imm(asm.R0, 1),
		asm.StoreMem(asm.R1, 0, asm.R0, asm.Byte),
		asm.Return(),
	}, &bpfjit.Options{Name: "increment"})
	if err != nil {
		log.Fatal(err)
	}
	defer prog.Close()

	mem := []byte{41}
	r0, err := prog.Run(mem)
	fmt.Println(r0, mem, err)
	// Output: 42 [42] <nil>
}

// A program that nobody has looked at can do no harm: here it never ends, and
// the context stops it.
func ExampleProgram_RunContext() {
	prog, err := bpfjit.Compile(asm.Instructions{
		asm.Ja.Label("again").WithSymbol("again"),
	}, &bpfjit.Options{Name: "endless", Budget: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer prog.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err = prog.RunContext(ctx, nil)
	fmt.Println(err)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// endless: instruction 0 (goto -1 <0>): context deadline exceeded
	// true
}

// A helper function is an ordinary Go function.
func ExampleOptions_helpers() {
	const shout = 1000
	prog, err := bpfjit.Compile(asm.Instructions{
		asm.BuiltinFunc(shout).Call(),
		asm.Return(),
	}, &bpfjit.Options{
		Helpers: map[asm.BuiltinFunc]bpfjit.HelperFunc{
			shout: func(env bpfjit.Env, r1, r2, r3, r4, r5 uint64) (uint64, error) {
				text, err := env.Bytes(r1, r2)
				if err != nil {
					return 0, err
				}
				copy(text, bytes.ToUpper(text))
				return uint64(len(text)), nil
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer prog.Close()

	mem := []byte("hello")
	r0, err := prog.Run(mem)
	fmt.Println(r0, string(mem), err)
	// Output: 5 HELLO <nil>
}

func ExampleProgram_Disassemble() {
	prog, err := bpfjit.Compile(asm.Instructions{
		asm.Mov.Imm(asm.R0, 2).WithSymbol("two").WithSource(asm.Comment("return 2;")),
		asm.Return(),
	}, &bpfjit.Options{Engine: bpfjit.EngineInterpreter})
	if err != nil {
		log.Fatal(err)
	}
	defer prog.Close()
	prog.Disassemble(os.Stdout)
	// Output:
	// two:
	// ; return 2;
	//     0  r0 = 2
	//     1  exit
}
