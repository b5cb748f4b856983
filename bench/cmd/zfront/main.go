package main

import (
	"fmt"
	"os"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/lower"
)

type staged struct {
	code            []byte
	source, lowered *bpf.Program
}

var insns []bpf.Insn
var hidden blind.Result

//go:noinline
func run(list []staged, stage string) {
	for i := range list {
		s := &list[i]
		var err error
		switch stage {
		case "decode":
			insns, err = bpf.AppendDecode(insns[:0], s.code)
		case "source":
			err = bpf.Check(s.source, bpf.Source)
		case "translated":
			bpf.Check(s.source, bpf.Translated)
		case "lower":
			_, err = lower.Lower(s.source)
		case "blind":
			err = hidden.Rewrite(s.source, nil)
		case "blindlowered":
			err = hidden.Rewrite(s.lowered, nil)
		}
		if err != nil {
			panic(err)
		}
	}
}

//go:noinline
func counted(list []staged, stage string) { run(list, stage) }

func main() {
	programs, _, err := corpus.Shared()
	if err != nil {
		panic(err)
	}
	var list []staged
	slots := 0
	for _, p := range programs {
		s := staged{code: bpf.Encode(p.Insns), source: &bpf.Program{Insns: p.Insns}}
		if bpf.Check(s.source, bpf.Source) != nil {
			continue
		}
		if s.lowered, err = lower.Lower(s.source); err != nil {
			continue
		}
		list = append(list, s)
		slots += len(p.Insns)
	}
	run(list, os.Args[1])
	counted(list, os.Args[1])
	fmt.Fprintln(os.Stderr, os.Args[1], slots, "slots")
}
