package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
)

var plain = func() *jit.Profile {
	p := jit.Linux618
	p.ReturnThunk = false
	return &p
}()

var mainFunc = &jit.Function{StackDepth: 512}

var cage bool
var code jit.Code
var hidden blind.Result

//go:noinline
func compile(raw []byte, on bool) error {
	insns, err := bpf.Decode(raw)
	if err != nil {
		return err
	}
	p := &bpf.Program{Insns: insns}
	if cage {
		if err := bpf.Check(p, bpf.Source); err != nil {
			return err
		}
		l, err := lower.Lower(p)
		if err != nil {
			return err
		}
		if on {
			if err := hidden.Rewrite(l, nil); err != nil {
				return err
			}
			l = &hidden.Program
		}
		return code.CompileCage(l, &jit.Cage)
	}
	if err := bpf.Check(p, bpf.Translated); err != nil {
		return err
	}
	if on {
		if err := hidden.Rewrite(p, nil); err != nil {
			return err
		}
		p = &hidden.Program
	}
	return code.Compile(p, plain, mainFunc)
}

//go:noinline
func counted(all [][]byte, on bool) {
	for _, raw := range all {
		if err := compile(raw, on); err != nil {
			panic(err)
		}
	}
}

func main() {
	on := flag.Bool("blind", false, "")
	flag.BoolVar(&cage, "cage", false, "")
	flag.Parse()
	programs, left, err := corpus.Shared()
	if err != nil {
		panic(err)
	}
	var all [][]byte
	slots := 0
	for _, p := range programs {
		raw := bpf.Encode(p.Insns)
		if err := compile(raw, *on); err != nil {
			fmt.Println(p.Name, err)
			left++
			continue
		}
		all = append(all, raw)
		slots += len(p.Insns)
	}
	for _, raw := range all {
		if err := compile(raw, *on); err != nil {
			panic(err)
		}
	}
	counted(all, *on)
	fmt.Fprintln(os.Stderr, len(all), "programs", slots, "slots", left, "left out")
}
