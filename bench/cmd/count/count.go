package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"

	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bench/internal/reemit"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/stages"
)

func main() {
	log.SetFlags(0)
	var o stages.Options
	flag.BoolVar(&o.Blind, "blind", false, "hide constants")
	flag.BoolVar(&o.Cage, "cage", false, "for the cage instead of the kernel's profile")
	plain := flag.Bool("reemit", false, "the plain compiler that emits in every pass")
	flag.Parse()

	programs, left, err := corpus.Shared()
	if errors.Is(err, fs.ErrNotExist) {
		log.Print("the shared corpus isn't here; generated programs instead")
		programs = corpus.Generated(200, 1000)
	} else if err != nil {
		log.Fatal(err)
	}
	c := &stages.Compiler{Options: o}
	compile := c.Compile
	if *plain {
		var r reemit.Compiler
		compile = func(slots []byte) error {
			insns, err := bpf.Decode(slots)
			if err != nil {
				return err
			}
			return r.Compile(insns)
		}
	}
	slots := 0
	var all [][]byte
	for _, p := range programs {
		all = append(all, bpf.Encode(p.Insns))
		slots += len(p.Insns)
	}
	// Twice: the first time makes memory.
	for _, sweep := range []func([][]byte, func([]byte) error) error{warm, counted} {
		if err := sweep(all, compile); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%d programs, %d slots; %d left out for their packet loads\n", len(all), slots, len(left))
}

//go:noinline
func counted(all [][]byte, compile func([]byte) error) error { return warm(all, compile) }

//go:noinline
func warm(all [][]byte, compile func([]byte) error) error {
	for _, slots := range all {
		if err := compile(slots); err != nil {
			return err
		}
	}
	return nil
}
