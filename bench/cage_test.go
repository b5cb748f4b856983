//go:build linux && amd64 && !purego

package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bench/internal/corpus"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
	"github.com/bpfjit/bpfjit/internal/stages"
	"github.com/bpfjit/bpfjit/jit"
	"github.com/bpfjit/bpfjit/lower"
	"github.com/bpfjit/bpfjit/machine"
)

// Codes of one program, whose times are compared.
const (
	kernelCode = iota // the kernel's profile, with the guards of divisions
	uncharged         // the cage, without CHARGE
	cageCode          // the cage
	numCodes
)

// placements is how many copies of each code are measured. Their random starts
// differ: how code lies in cache lines matters up to a fifth.
const placements = 16

// variants compiles a program in all ways, and gives R1 of each.
func variants(b *testing.B, src *bpf.Program, mem uint64) (images [numCodes][placements]*image.Image, r1 [numCodes]uint64) {
	if err := bpf.Check(src, bpf.Source); err != nil {
		b.Fatal(err)
	}
	lowered, err := lower.Lower(src)
	if err != nil {
		b.Fatal(err)
	}
	plainProgram := withoutCharges(lowered)
	region, err := image.Default()
	if err != nil {
		b.Fatal(err)
	}
	for k, compile := range [numCodes]func() ([]byte, error){
		kernelCode: func() ([]byte, error) { return linkKernel(plainProgram) },
		uncharged:  func() ([]byte, error) { return cageBytes(plainProgram) },
		cageCode:   func() ([]byte, error) { return cageBytes(lowered) },
	} {
		code, err := compile()
		if err != nil {
			b.Fatal(err)
		}
		for n := range images[k] {
			images[k][n], err = region.Publish(code, nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(images[k][n].Free)
		}
		r1[k] = abi.MemBase
	}
	r1[kernelCode] = mem
	return images, r1
}

func cageBytes(p *bpf.Program) ([]byte, error) {
	code, err := jit.CompileCage(p, &jit.Cage)
	if err != nil {
		return nil, err
	}
	return code.Bytes, nil
}

// linkKernel compiles every function of a program in the kernel's profile, one
// behind the other, and links the calls among them. There may be no others.
func linkKernel(p *bpf.Program) ([]byte, error) {
	funcs, err := bpf.Functions(p)
	if err != nil {
		return nil, err
	}
	entry := map[int]uint64{}
	codes := make([]*jit.Code, len(funcs))
	at := uint64(0)
	for i, f := range funcs {
		fn := &jit.Function{StackDepth: 512, Subprogram: i > 0}
		codes[i], err = jit.Compile(&bpf.Program{Insns: p.Insns[f.Start:f.End]}, stages.Kernel, fn)
		if err != nil {
			return nil, err
		}
		entry[f.Start] = at
		at = (at + uint64(len(codes[i].Bytes)) + 15) &^ 15
	}
	var all []byte
	for i, f := range funcs {
		err := codes[i].Link(entry[f.Start], func(r jit.Reloc) (uint64, error) {
			if r.Kind != jit.RelLocal {
				return 0, fmt.Errorf("slot %d: relocation %d", r.Slot, r.Kind)
			}
			return entry[f.Start+r.Slot+1+int(p.Insns[f.Start+r.Slot].Imm)], nil
		})
		if err != nil {
			return nil, err
		}
		for uint64(len(all)) < entry[f.Start] {
			all = append(all, 0xcc)
		}
		all = append(all, codes[i].Bytes...)
	}
	return all, nil
}

// withoutCharges removes CHARGE from a lowered program.
func withoutCharges(p *bpf.Program) *bpf.Program {
	now := make([]int, len(p.Insns)+1) // new slot by old one
	var insns []bpf.Insn
	for i, in := range p.Insns {
		now[i] = len(insns)
		if in.Op != abi.OpCharge {
			insns = append(insns, in)
		}
	}
	now[len(p.Insns)] = len(insns)
	for i, in := range p.Insns {
		to := &insns[min(now[i], len(insns)-1)]
		distance := func(d int) int { return now[i+1+d] - now[i] - 1 }
		class := in.Op & abi.ClassMask
		switch {
		case in.Op == abi.OpCharge, in.Op == abi.OpExit, class != abi.ClassJMP && class != abi.ClassJMP32:
		case in.Op == abi.OpCall && in.Src() == abi.CallLocal, in.Op == abi.OpGotol:
			to.Imm = int32(distance(int(in.Imm)))
		case in.Op != abi.OpCall && in.Op != abi.OpCallx:
			to.Off = int16(distance(int(in.Off)))
		}
	}
	return &bpf.Program{Insns: insns}
}

// batch is how many runs are timed together.
const batch = 20

// once runs code on an instance, for the first time.
func once(inst *cage.Instance, im *image.Image, r1, r2 uint64) (out machine.Result) {
	var f machine.Frame
	f.Bind(inst, im, &machine.Input{})
	if f.Enter(r1, r2) {
		out.R0, out.Used = f.R0(), f.Used()
	} else {
		f.Finish(&out)
	}
	return out
}

// BenchmarkKernels runs the programs of testdata/kernels as the kernel's code
// and as the cage's, in turns, and reports the shortest time of each: the cage
// over the kernel's, and the cage over the cage without CHARGE. geomean is
// over all programs.
func BenchmarkKernels(b *testing.B) {
	programs, err := corpus.Kernels()
	if err != nil {
		b.Skip(err)
	}
	if err := machine.Check(); err != nil {
		b.Fatal(err)
	}
	results := kernelResults(b)
	input, err := os.ReadFile(filepath.Join("..", "testdata", "kernels", "ctx1024.bin"))
	if err != nil {
		b.Fatal(err)
	}
	input = append(input, make([]byte, 2048-len(input))...)
	space := &cage.Space{}
	defer space.Close()
	inst, err := space.NewInstance(cage.Window)
	if err != nil {
		b.Fatal(err)
	}
	defer inst.Close()
	var logs [2]float64
	n := 0
	for _, p := range programs {
		b.Run("program="+p.Name, func(b *testing.B) {
			images, r1 := variants(b, &bpf.Program{Insns: p.Insns}, uint64(uintptr(inst.Base()))+abi.MemBase)
			var best [numCodes][placements]time.Duration
			measure := func(k, n int) {
				if err := inst.LoadMem(input); err != nil {
					b.Fatal(err)
				}
				var out machine.Result
				began := time.Now()
				for range batch {
					out = once(inst, images[k][n], r1[k], uint64(len(input)))
				}
				d := time.Since(began) / batch
				if out.Stop != abi.StopExit || out.R0 != results[p.Name] {
					b.Fatalf("code %d: %+v, want R0 %#x", k, out, results[p.Name])
				}
				if t := &best[k][n]; *t == 0 || d < *t {
					*t = d
				}
			}
			for b.Loop() {
				for n := range placements {
					for k := range images {
						measure(k, n)
					}
				}
			}
			var mean [numCodes]float64
			for k := range best {
				for _, d := range best[k] {
					mean[k] += float64(d) / placements
				}
			}
			ratio := mean[cageCode] / mean[kernelCode]
			charge := mean[cageCode] / mean[uncharged]
			b.ReportMetric(mean[kernelCode], "kernel-ns")
			b.ReportMetric(mean[cageCode], "cage-ns")
			b.ReportMetric(ratio, "cage/kernel")
			b.ReportMetric(charge, "charge")
			logs[0] += math.Log(ratio)
			logs[1] += math.Log(charge)
			n++
		})
	}
	b.Run("program=geomean", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(math.Exp(logs[0]/float64(n)), "cage/kernel")
		b.ReportMetric(math.Exp(logs[1]/float64(n)), "charge")
	})
}

// kernelResults returns what the programs return, by name.
func kernelResults(b *testing.B) map[string]uint64 {
	text, err := os.ReadFile(filepath.Join("..", "testdata", "kernels", "results.txt"))
	if err != nil {
		b.Fatal(err)
	}
	results := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var r0 uint64
		if _, err := fmt.Sscanf(line, "%s %v", &name, &r0); err != nil {
			b.Fatal(err)
		}
		results[name] = r0
	}
	return results
}
