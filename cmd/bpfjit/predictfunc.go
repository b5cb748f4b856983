package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/blind"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/jit"
)

// fate says what becomes of a program.
type fate string

// The verdicts, from good to bad. A program has the worst one of its
// functions.
const (
	verdictLoads          fate = "loads"
	verdictAttachHardened fate = "can't be attached when hardened"
	verdictAttach         fate = "can't be attached"
	verdictHardened       fate = "fails when hardened"
	verdictDanger         fate = "dangerous when hardened"
	verdictUnsettled      fate = "would not converge"
	verdictRefused        fate = "refused by the verifier"
	verdictUnknown        fate = "can't be told"
)

var verdicts = []fate{verdictLoads, verdictAttachHardened, verdictAttach, verdictHardened, verdictDanger,
	verdictUnsettled, verdictRefused, verdictUnknown}

// judgement is a verdict and the reason for it.
type judgement struct {
	Verdict fate   `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
}

// add keeps the worse one.
func (j *judgement) add(v fate, reason string) {
	rank := func(v fate) int {
		for i := range verdicts {
			if verdicts[i] == v {
				return i
			}
		}
		return -1 // none yet
	}
	if rank(v) > rank(j.Verdict) {
		j.Verdict, j.Reason = v, reason
	}
}

// function is a function of a program as a JIT gets it.
type function struct {
	name    string
	source  *bpfjit.Source
	plain   *bpf.Program // its Origin has the slots of the source
	toHide  *bpf.Program // the same, as it is when constants are to be hidden
	stack   int
	compile func(*bpf.Program) (*jit.Code, error)
	kernel  *predictKernel // nil: wasn't asked
}

// predictFunction is what is told about a function.
type predictFunction struct {
	Name  string `json:"name"`
	Slots int    `json:"slots"`
	// Constants that hardening hides; a 64-bit one counts as two.
	Constants int `json:"constants"`
	Stack     int `json:"stack_bytes"`
	codeSize
	// Ahead and Back are the jumps of 16 bits that lead farthest.
	Ahead    *predictJump     `json:"ahead,omitempty"`
	Back     *predictJump     `json:"back,omitempty"`
	Hardened *predictHardened `json:"hardened,omitempty"`
	Kernel   *predictKernel   `json:"kernel,omitempty"`
	judgement
}

// codeSize is what is known of compiled code.
type codeSize struct {
	Passes  []int `json:"passes"` // the lengths that they arrived at
	Padding int   `json:"padding_bytes"`
	Code    int   `json:"code_bytes"`
	Faults  int   `json:"exception_entries"` // of the exception table
	Image   int   `json:"image_bytes"`       // charged by the allocator
}

func sizeOf(code *jit.Code) codeSize {
	f := &code.Funcs[0]
	return codeSize{f.Passes, f.Padding, len(code.Bytes), len(code.Faults), imageSize(len(code.Bytes), len(code.Faults))}
}

// imageSize is what the kernel's pack allocator charges for code: with the
// exception table behind it and a header before it, room for a random start,
// in chunks of 64 bytes.
func imageSize(code, faults int) int {
	const header, hole, entry, chunk = 8, 16, 12, 64
	if faults > 0 {
		code = (code+3)&^3 + faults*entry
	}
	return (code + header + hole + chunk - 1) &^ (chunk - 1)
}

// predictHardened is what hiding constants makes of a function.
type predictHardened struct {
	Slots   int   `json:"slots"`
	Seeds   int   `json:"seeds"` // how many were tried
	Passes  *span `json:"passes,omitempty"`
	Padding *span `json:"padding_bytes,omitempty"`
	Code    *span `json:"code_bytes,omitempty"`
	Image   *span `json:"image_bytes,omitempty"`
	// Unsettled counts the seeds whose code would not converge.
	Unsettled int          `json:"unsettled,omitempty"`
	Ahead     *predictJump `json:"ahead,omitempty"`
	Back      *predictJump `json:"back,omitempty"`
	// TooFar counts the jumps that no longer fit 16 bits.
	TooFar int `json:"too_far,omitempty"`
}

// span is the least and the greatest of several values.
type span struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// with returns the span that has v as well.
func (s *span) with(v int) *span {
	if s == nil {
		return &span{v, v}
	}
	return &span{min(s.Min, v), max(s.Max, v)}
}

func (s *span) String() string {
	switch {
	case s == nil:
		return "-"
	case s.Min == s.Max:
		return fmt.Sprint(s.Min)
	}
	return fmt.Sprintf("%d-%d", s.Min, s.Max)
}

// predictJump is a jump whose distance has 16 bits.
type predictJump struct {
	Slot     int    `json:"slot"` // in the source
	Insn     string `json:"insn"`
	Line     string `json:"line,omitempty"`
	Distance int    `json:"distance"` // in slots
	Room     int    `json:"room"`     // to the end of the 16 bits; < 0: beyond
}

// jumps finds the jumps of 16 bits. index says where slots of p are once
// constants are hidden; nil: where they were. wraps tells of the first jump
// back that kernels with CVE-2026-98816 would wrap round.
func (f *function) jumps(p *bpf.Program, index []int32) (ahead, back, wraps *predictJump, tooFar int) {
	at := func(slot int) int {
		if index == nil {
			return slot
		}
		return int(index[slot])
	}
	for slot, in := range p.Insns {
		if !shortDistance(in) {
			continue
		}
		to := slot + 1 + int(in.Off)
		if to < 0 || to > len(p.Insns) {
			continue
		}
		d := at(to) - at(slot+1)
		room := min(math.MaxInt16-d, d-math.MinInt16)
		j := func() *predictJump {
			src := p.Source(slot)
			return &predictJump{src, text(f.source, p, slot), f.source.Line(src).String(), d, room}
		}
		if room < 0 {
			tooFar++
		}
		// The kernel moves a jump back by the two instructions before it, after
		// it has looked whether the rest of the distance fits.
		if d < math.MinInt16 && d+2 >= math.MinInt16 && at(slot+1)-at(slot) == 3 && wraps == nil {
			wraps = j()
		}
		if d >= 0 && (ahead == nil || d > ahead.Distance) {
			ahead = j()
		} else if d < 0 && (back == nil || d < back.Distance) {
			back = j()
		}
	}
	return ahead, back, wraps, tooFar
}

// shortDistance tells whether an instruction is a jump whose distance has 16
// bits. Only gotol, calls and constants have another one.
func shortDistance(in bpf.Insn) bool {
	const classMask, jmp, jmp32, call, gotol = 7, 5, 6, 0x85, 0x06
	class := in.Op & classMask
	_, ok := bpf.Distance(in)
	return ok && (class == jmp || class == jmp32) && in.Op != call && in.Op != gotol
}

// function finds out about a function.
func (p *predictor) function(f *function) *predictFunction {
	r := &predictFunction{Name: f.name, Slots: len(f.plain.Insns), Stack: f.stack, Kernel: f.kernel}
	p.progress.step("%s", f.name)
	r.add(verdictLoads, "")
	r.Ahead, r.Back, _, _ = f.jumps(f.plain, nil)
	code, err := f.compile(f.plain)
	switch {
	case errors.Is(err, jit.ErrConvergence):
		r.add(verdictUnsettled, reason(f.source, f.plain, err))
	case err != nil:
		r.add(verdictUnknown, reason(f.source, f.plain, err))
		return r
	default:
		r.codeSize = sizeOf(code)
	}
	if !p.plain {
		p.harden(f, r)
	}
	return r
}

// harden hides the constants of a function, again and again.
func (p *predictor) harden(f *function, r *predictFunction) {
	h := &predictHardened{Seeds: p.seeds}
	r.Hardened = h
	var hidden blind.Result
	for i := range p.seeds {
		p.progress.step("%s, seed %d of %d", f.name, i+1, p.seeds)
		err := hidden.Rewrite(f.toHide, randomOf(p.seed+uint64(i)))
		if i == 0 {
			var wraps *predictJump
			r.Constants, h.Slots = hidden.Constants, int(hidden.Index[len(f.toHide.Insns)])
			h.Ahead, h.Back, wraps, h.TooFar = f.jumps(f.toHide, hidden.Index)
			if wraps != nil {
				r.add(verdictDanger, fmt.Sprintf("%s would lead %d: kernels with CVE-2026-98816 run wild there", wraps, wraps.Distance))
			}
		}
		if err != nil { // which no random number changes
			v := verdictUnknown
			if errors.Is(err, bpf.ErrRange) {
				v = verdictHardened
			}
			r.add(v, reason(f.source, f.toHide, err))
			return
		}
		code, err := f.compile(&hidden.Program)
		switch {
		case errors.Is(err, jit.ErrConvergence):
			h.Unsettled++
		case err != nil:
			r.add(verdictUnknown, reason(f.source, &hidden.Program, err))
			return
		default:
			s := sizeOf(code)
			h.Passes, h.Padding = h.Passes.with(len(s.Passes)), h.Padding.with(s.Padding)
			h.Code, h.Image = h.Code.with(s.Code), h.Image.with(s.Image)
		}
	}
	if h.Unsettled > 0 {
		r.add(verdictHardened, fmt.Sprintf("the code would not converge with %d of %d seeds", h.Unsettled, p.seeds))
	}
}

// randomOf returns the random numbers of a seed.
func randomOf(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// reason puts an error about a slot of p in words, with the line of C.
func reason(src *bpfjit.Source, p *bpf.Program, err error) string {
	var be *bpf.Error
	if !errors.As(err, &be) || be.Slot < 0 || be.Slot >= len(p.Insns) || be.Field == "" {
		return err.Error()
	}
	slot := p.Source(be.Slot)
	j := predictJump{Slot: slot, Insn: text(src, p, be.Slot), Line: src.Line(slot).String()}
	return fmt.Sprintf("%s: %s %s", &j, be.Field, be.Reason)
}

// text returns the instruction in a slot of p as its author wrote it, with the
// slot of the source that a jump leads to, if the author did.
func text(src *bpfjit.Source, p *bpf.Program, slot int) string {
	in, wrote := p.Insns[slot], p.Source(slot)
	if wrote < len(src.Program.Insns) && src.Program.Insns[wrote].Op == in.Op {
		return src.Program.Text(wrote)
	}
	return bpf.Text(in)
}

// String names the jump: instruction 3 (goto +5 <9>) at filter.c:7.
func (j *predictJump) String() string {
	s := fmt.Sprintf("instruction %d (%s)", j.Slot, j.Insn)
	if j.Line != "" {
		s += " at " + j.Line
	}
	return s
}
