package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

const vectorsText = `Reads test vectors, one JSON object a line, and answers each with a line, in
the same order. A row that can't be answered gets an "error", and the rest
goes on. The exit code is 0 when every row was answered.

in:   name, insns_hex (8 bytes a slot, little-endian); optional mem_hex (r1 is
      its address, r2 its length, else both 0) or ctx_hex (r1 only), and params
      (stack_depth, is_subprog, tail_call_reachable, exception_boundary,
      exception_cb, arena_vm_start, arena_user_vm_start, priv_frame_ptr, bmi2,
      ret_thunk). params or -profile kernel mean a translated program, which is
      compiled but not run.
out:  name, code_hex, passes, proglens, blinded_hex, r0, mem_hex (after the
      run), engine, error with insn (the slot at fault)

The clock begins at 0 and goes on by 1 ns a call, random numbers come from
-seed, the processor is number 0.`

// vectorsBudget ends programs that other tools would run for ever.
const vectorsBudget = 1 << 20

// vectorIn is a row of the input.
type vectorIn struct {
	Name   string        `json:"name"`
	Insns  string        `json:"insns_hex"`
	Mem    string        `json:"mem_hex"`
	Ctx    *string       `json:"ctx_hex"`
	Params *vectorParams `json:"params"`
}

// vectorParams is what a kernel's verifier knows of a function, under the
// names of the golden file.
type vectorParams struct {
	StackDepth        int    `json:"stack_depth"`
	Subprogram        bool   `json:"is_subprog"`
	TailCallReachable bool   `json:"tail_call_reachable"`
	ExceptionBoundary bool   `json:"exception_boundary"`
	ExceptionCallback bool   `json:"exception_cb"`
	ArenaKernel       number `json:"arena_vm_start"`
	ArenaUser         number `json:"arena_user_vm_start"`
	PrivateStack      number `json:"priv_frame_ptr"`
	BMI2              *bool  `json:"bmi2"`
	ReturnThunk       *bool  `json:"ret_thunk"`
}

// address is a number in text, such as "0x1000", or null.
type number uint64

func (n *number) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		return nil
	}
	v, err := strconv.ParseUint(s, 0, 64)
	*n = number(v)
	return err
}

// vectorOut is a row of the output.
type vectorOut struct {
	Name     string  `json:"name"`
	Code     string  `json:"code_hex,omitempty"`
	Passes   int     `json:"passes,omitempty"`
	ProgLens []int   `json:"proglens,omitempty"`
	Blinded  string  `json:"blinded_hex,omitempty"`
	R0       string  `json:"r0,omitempty"`
	Mem      *string `json:"mem_hex,omitempty"`
	Engine   string  `json:"engine,omitempty"`
	Error    string  `json:"error,omitempty"`
	Insn     *int    `json:"insn,omitempty"`
}

// vectors holds the flags of the subcommand.
type vectors struct {
	profile string
	engine  bpfjit.Engine
	blind   bool
	seed    uint64
	budget  int64
	norun   bool
}

func runVectors(stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	var v vectors
	set := flags(stderr, "vectors", "< rows", vectorsText)
	set.StringVar(&v.profile, "profile", "cage", "`profile`: kernel or cage")
	set.TextVar(&v.engine, "engine", bpfjit.EngineAuto, "`engine`: auto, jit or interp")
	set.BoolVar(&v.blind, "blind", false, "hide constants")
	set.Uint64Var(&v.seed, "seed", 0, "`seed` of random numbers")
	set.Int64Var(&v.budget, "budget", vectorsBudget, "instructions that a run may execute; < 0: without end")
	set.BoolVar(&v.norun, "norun", false, "compile only")
	if code, done := parse(set, stdout, args); done {
		return code
	}
	switch {
	case set.NArg() > 0:
		return misused(set, "reads rows from its input, and takes no arguments")
	case v.profile != "kernel" && v.profile != "cage":
		return misused(set, "there is no profile %q (kernel, cage)", v.profile)
	}
	if err := v.answer(stdin, stdout); err != nil {
		return fail(stderr, "vectors", err)
	}
	return exitOK
}

// answer answers row after row.
func (v *vectors) answer(in io.Reader, out io.Writer) error {
	r := bufio.NewReaderSize(in, 1<<16)
	w := bufio.NewWriter(out)
	defer w.Flush()
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		line, err := r.ReadBytes('\n')
		if len(strings.TrimSpace(string(line))) > 0 {
			if err := enc.Encode(v.row(line)); err != nil {
				return err
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// row answers one row.
func (v *vectors) row(line []byte) (out vectorOut) {
	var in vectorIn
	err := json.Unmarshal(line, &in)
	out.Name = in.Name
	var code []byte
	if err == nil {
		code, err = unhex(in.Insns)
	}
	switch {
	case err != nil:
	case in.Params != nil || v.profile == "kernel":
		err = v.translated(code, in.Params, &out)
	default:
		err = v.source(code, &in, &out)
	}
	if err != nil {
		out.Error = err.Error()
		out.Insn = slotOf(err)
	}
	return out
}

// slotOf returns the slot that an error names, or nil.
func slotOf(err error) *int {
	var be *bpf.Error
	var ce *bpfjit.CompileError
	var re *bpfjit.RunError
	slot := -1
	switch {
	case errors.As(err, &re):
		slot = re.Offset
	case errors.As(err, &ce):
		slot = ce.Offset
	case errors.As(err, &be):
		slot = be.Slot
	}
	if slot < 0 {
		return nil
	}
	return &slot
}

// translated compiles a function for the kernel.
func (v *vectors) translated(code []byte, params *vectorParams, out *vectorOut) error {
	if params == nil {
		params = new(vectorParams)
	}
	insns, err := bpf.Decode(code)
	if err != nil {
		return err
	}
	p := &bpf.Program{Insns: insns}
	if err := bpf.Check(p, bpf.Translated); err != nil {
		return err
	}
	if v.blind {
		if p, err = blind.Rewrite(p, v.keys()); err != nil {
			return err
		}
		out.Blinded = hex.EncodeToString(bpf.Encode(p.Insns))
	}
	if err := params.check(); err != nil {
		return err
	}
	c, err := jit.Compile(p, params.profile(), params.function())
	if err != nil {
		return err
	}
	out.Code = hex.EncodeToString(c.Bytes)
	out.ProgLens = c.Funcs[0].Passes
	out.Passes = len(out.ProgLens)
	return nil
}

// keys returns what hides constants: the same for every row.
func (v *vectors) keys() io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], v.seed)
	return rand.NewChaCha8(key)
}

func (p *vectorParams) profile() *jit.Profile {
	profile := jit.Linux618
	if p.ReturnThunk != nil {
		profile.ReturnThunk = *p.ReturnThunk
	}
	if p.BMI2 != nil && !*p.BMI2 {
		profile = profile.WithoutBMI2()
	}
	return &profile
}

// check refuses what no function of a kernel has.
func (p *vectorParams) check() error {
	if p.StackDepth < 0 || p.StackDepth > abi.FrameBytes {
		return fmt.Errorf("stack_depth is %d, not 0 to %d", p.StackDepth, abi.FrameBytes)
	}
	return nil
}

func (p *vectorParams) function() *jit.Function {
	return &jit.Function{
		StackDepth: p.StackDepth, Subprogram: p.Subprogram, TailCallReachable: p.TailCallReachable,
		ExceptionBoundary: p.ExceptionBoundary, ExceptionCallback: p.ExceptionCallback,
		ArenaKernel: uint64(p.ArenaKernel), ArenaUser: uint64(p.ArenaUser), PrivateStack: uint64(p.PrivateStack),
	}
}

// source compiles a program for the cage and runs it.
func (v *vectors) source(code []byte, in *vectorIn, out *vectorOut) error {
	mem, err := unhex(in.Mem)
	if err != nil {
		return fmt.Errorf("mem_hex: %w", err)
	}
	var ctx []byte
	if in.Ctx != nil {
		if ctx, err = unhex(*in.Ctx); err != nil {
			return fmt.Errorf("ctx_hex: %w", err)
		}
	}
	random := rand.New(rand.NewPCG(v.seed, 0))
	clock := uint64(0)
	prog, err := bpfjit.CompileBytes(code, &bpfjit.Options{
		Name: in.Name, Engine: v.engine, Blinding: v.blind, Budget: v.budget,
		Clock:  func() uint64 { clock++; return clock - 1 },
		Random: random.Uint32,
		Rand:   v.keys(),
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	info := prog.Info()
	out.Engine = info.Engine.String()
	out.Code = hex.EncodeToString(prog.Code())
	out.ProgLens = info.Passes
	out.Passes = len(info.Passes)
	if info.Blinded {
		out.Blinded = hex.EncodeToString(bpf.Encode(prog.Listing().Program.Insns))
	}
	if v.norun {
		return nil
	}
	var r0 uint64
	switch {
	case in.Ctx != nil:
		r0, err = prog.RunStruct(ctx)
	default:
		r0, err = prog.Run(mem)
	}
	if in.Mem != "" {
		after := hex.EncodeToString(mem)
		out.Mem = &after
	}
	if err == nil {
		out.R0 = fmt.Sprintf("%#x", r0)
	}
	return err
}
