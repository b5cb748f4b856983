package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bpfjit/bpfjit"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/printable"
)

// predictReport is what predict tells about an object, and what -json writes.
type predictReport struct {
	Object   string            `json:"object"`
	Loads    bool              `json:"loads"` // everything, for sure; and with -live: as the kernel did it
	Live     bool              `json:"live"`
	Programs []*predictProgram `json:"programs"`
	// JITLimit compares the images of all programs with net.core.bpf_jit_limit.
	JITLimit *predictLimit `json:"bpf_jit_limit,omitempty"`
	// Unknown is what the report rests on, and what it can't know.
	Unknown []string `json:"unknown"`
}

// predictProgram is what is told about a program.
type predictProgram struct {
	Name string `json:"name"`
	Type string `json:"type"`
	judgement
	Functions []*predictFunction `json:"functions"`
	// Image is the sum of the functions' images.
	Image    int   `json:"image_bytes"`
	Hardened *span `json:"hardened_image_bytes,omitempty"`
	// Optmem compares a socket filter with net.core.optmem_max.
	Optmem *predictLimit `json:"optmem_max,omitempty"`
	// Kernel is the running kernel's answer, with -live: "loaded", or its error.
	Kernel string `json:"kernel,omitempty"`
}

// predictLimit compares a need with a limit, in bytes.
type predictLimit struct {
	Limit    int  `json:"limit"`
	Plain    int  `json:"plain"`
	Hardened int  `json:"hardened,omitempty"` // at most
	Within   bool `json:"within"`
}

// optmem is what attaching a socket filter takes of net.core.optmem_max, in
// bytes beside those of its instructions, found out by attaching filters of
// all lengths to sockets of Linux 6.18: with 131072 a program of 16371 slots is
// the longest one, 5457 slots of constants when hardened, which are 16369.
const optmem = 96

// predict tells about a program.
func (p *predictor) predict(o *object, kind, name string, source func() (*bpfjit.Source, error)) *predictProgram {
	r := &predictProgram{Name: name, Type: kind}
	r.add(verdictLoads, "")
	src, err := source()
	if err != nil {
		r.add(verdictUnknown, err.Error())
		return r
	}
	var funcs []*function
	byJIT := false // it was the kernel's JIT that refused it
	if p.live && src.Type == 0 {
		r.Kernel = "wasn't asked: the section of the program names no type"
		r.add(verdictUnknown, r.Kernel)
	} else if p.live {
		p.progress.step("%s, in the kernel", printable.Name(name))
		funcs, err = asked(o, name)
		var le *kernel.LoadError
		switch {
		case err == nil:
			r.Kernel = "loaded"
		case errors.As(err, &le) && le.ByJIT():
			r.Kernel, byJIT = le.Error(), true
		case errors.As(err, &le):
			r.Kernel = le.Error()
			r.add(verdictRefused, le.Error())
		default:
			r.Kernel = err.Error()
			r.add(verdictUnknown, err.Error())
		}
	}
	if funcs == nil {
		if funcs, err = estimated(src, p.profile); err != nil {
			r.add(verdictUnknown, err.Error())
			return r
		}
	}
	for _, f := range funcs {
		row := p.function(f)
		r.Functions = append(r.Functions, row)
		if text := row.Reason; len(funcs) > 1 && text != "" {
			r.add(row.Verdict, row.Name+": "+text)
		} else {
			r.add(row.Verdict, text)
		}
		r.Image += row.Image
	}
	r.sum()
	if byJIT && r.Verdict == verdictLoads {
		r.add(verdictUnknown, "not foreseen: "+r.Kernel)
	}
	if p.optmemMax.asked && kind == "SocketFilter" {
		r.attach(p.optmemMax.value, p.plain)
	}
	return r
}

// sum adds up the images of the hardened functions, if they are known.
func (r *predictProgram) sum() {
	var total span
	for _, f := range r.Functions {
		if f.Hardened == nil || f.Hardened.Image == nil {
			return
		}
		total.Min += f.Hardened.Image.Min
		total.Max += f.Hardened.Image.Max
	}
	r.Hardened = &total
}

// attach compares a socket filter with net.core.optmem_max.
func (r *predictProgram) attach(limit int, plain bool) {
	l := &predictLimit{Limit: limit, Plain: optmem, Within: true}
	r.Optmem = l
	for _, f := range r.Functions {
		l.Plain += 8 * f.Slots
	}
	need := l.Plain
	if len(r.Functions) == 1 && !plain {
		// Of several functions the kernel counts those that were loaded.
		if h := r.Functions[0].Hardened; h != nil {
			l.Hardened = optmem + 8*h.Slots
			need = l.Hardened
		}
	}
	l.Within = need < limit
	switch {
	case l.Plain >= limit:
		r.add(verdictAttach, fmt.Sprintf("a socket would need more than %d bytes of optmem_max, which is %d (ENOMEM)", l.Plain, limit))
	case !l.Within:
		r.add(verdictAttachHardened, fmt.Sprintf("a socket would need more than %d bytes of optmem_max, which is %d (ENOMEM)", l.Hardened, limit))
	}
}

// finish completes the report.
func (r *predictReport) finish(p *predictor) {
	r.Loads = true
	limit := &predictLimit{Limit: p.jitLimit.value}
	for _, prog := range r.Programs {
		r.Loads = r.Loads && prog.Verdict == verdictLoads && prog.equal()
		limit.Plain += prog.Image
		if prog.Hardened != nil {
			limit.Hardened += prog.Hardened.Max
		}
	}
	if p.jitLimit.asked {
		limit.Within = max(limit.Plain, limit.Hardened) <= limit.Limit
		r.Loads = r.Loads && limit.Within
		r.JITLimit = limit
	}
	r.Unknown = r.unknown(p)
}

// equal tells whether the kernel's code is ours, where that was asked.
func (r *predictProgram) equal() bool {
	return !slices.ContainsFunc(r.Functions, func(f *predictFunction) bool { return f.Kernel != nil && !f.Kernel.Equal })
}

// unknown tells what the report rests on.
func (r *predictReport) unknown(p *predictor) []string {
	var list []string
	all := !slices.ContainsFunc(r.Programs, func(p *predictProgram) bool { return p.Kernel != "loaded" })
	if !all {
		list = append(list,
			"Assumed: Linux 6.18, a processor with BMI2, return thunks and retpolines.",
			"Not known: what a kernel's verifier rewrites before its JIT (accesses to contexts, divisions, inlined helpers, dead code), so slots, distances and sizes are estimates.",
			"Estimated: the stack, by the direct accesses; the verifier's number decides.")
	}
	if p.live {
		list = append(list, "From the running kernel: the instructions that its verifier gave to its JIT, and the stack, of programs that it loaded.")
	}
	if !p.plain {
		list = append(list, fmt.Sprintf("Hardened sizes are of %d seeds from %d; a kernel draws its own random numbers. Slots and distances don't depend on them.", p.seeds, p.seed))
	}
	if slices.ContainsFunc(r.Programs, func(p *predictProgram) bool {
		return p.Verdict == verdictUnsettled || p.Verdict == verdictHardened
	}) {
		list = append(list, "What the JIT refuses fails to load with errno 524 where CONFIG_BPF_JIT_ALWAYS_ON is set, and for programs with kfuncs; elsewhere it is interpreted.")
	}
	if r.JITLimit != nil {
		list = append(list, "bpf_jit_limit counts the images of all programs of the machine, here are those of the object; with CAP_BPF it may be exceeded.")
	}
	return list
}

// write shows the report.
func (r *predictReport) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Object)
	for _, p := range r.Programs {
		p.write(&b)
	}
	count := map[fate]int{}
	for _, p := range r.Programs {
		count[p.Verdict]++
	}
	var parts []string
	for _, v := range verdicts {
		if n := count[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", v, n))
		}
	}
	fmt.Fprintf(&b, "\nprograms: %d; %s\n", len(r.Programs), strings.Join(parts, ", "))
	if l := r.JITLimit; l != nil {
		fmt.Fprintf(&b, "bpf_jit_limit: %v\n", l)
	}
	fmt.Fprintln(&b)
	for _, text := range r.Unknown {
		fmt.Fprintf(&b, "%s\n", text)
	}
	_, err := io.WriteString(w, blanks.ReplaceAllString(b.String(), "\n"))
	return err
}

func (l *predictLimit) String() string {
	s := fmt.Sprintf("%d bytes of %d", l.Plain, l.Limit)
	if l.Hardened > 0 {
		s += fmt.Sprintf(", %d at most when hardened", l.Hardened)
	}
	if !l.Within {
		s += ": too much"
	}
	return s
}

func (r *predictProgram) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s (%s): %s\n", printable.Name(r.Name), r.Type, r.Verdict)
	if r.Reason != "" {
		fmt.Fprintf(w, "  %s\n", r.Reason)
	}
	for _, f := range r.Functions {
		if len(r.Functions) > 1 {
			fmt.Fprintf(w, "  %s: %s\n", f.Name, f.Verdict)
		}
		f.write(w)
	}
	if r.Optmem != nil {
		fmt.Fprintf(w, "  optmem_max: %v\n", r.Optmem)
	}
}

// write shows a function as a table: what it is, plain and hardened.
func (f *predictFunction) write(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	h := f.Hardened
	row := func(name, plain, hardened string) {
		if f.Hardened == nil {
			hardened = ""
		}
		fmt.Fprintf(table, "    %s\t%s\t%s\n", name, plain, hardened)
	}
	if h == nil {
		h = new(predictHardened) // not shown
	}
	row("", "PLAIN", fmt.Sprintf("HARDENED, %d seeds", h.Seeds))
	row("slots", fmt.Sprint(f.Slots), fmt.Sprint(h.Slots))
	if f.Hardened != nil {
		row("constants", fmt.Sprint(f.Constants), "hidden")
	}
	if f.Kernel == nil {
		row("stack, estimated", fmt.Sprint(f.Stack), "")
	} else {
		row("stack", fmt.Sprint(f.Stack), "")
	}
	known := func(v int) string {
		if f.Passes == nil {
			return "-"
		}
		return fmt.Sprint(v)
	}
	row("code", known(f.Code), h.Code.String())
	row("image", known(f.Image), h.Image.String())
	row("passes", known(len(f.Passes)), h.Passes.String())
	row("padding", known(f.Padding), h.Padding.String())
	row("farthest ahead", f.Ahead.short(), h.Ahead.short())
	row("farthest back", f.Back.short(), h.Back.short())
	if f.Kernel != nil {
		same := "the same bytes"
		if !f.Kernel.Equal {
			same = "other bytes"
		}
		row("kernel's code", fmt.Sprintf("%d, %s", f.Kernel.Code, same), "")
	}
	table.Flush()
	if f.Passes != nil {
		fmt.Fprintf(w, "    lengths of the passes: %s\n", strings.Trim(fmt.Sprint(f.Passes), "[]"))
	}
}

// short tells how far a jump leads, and what is left: +120 at 7, 32647 left.
func (j *predictJump) short() string {
	switch {
	case j == nil:
		return "-"
	case j.Room < 0:
		return fmt.Sprintf("%+d at %d, %d too far", j.Distance, j.Slot, -j.Room)
	}
	return fmt.Sprintf("%+d at %d, %d left", j.Distance, j.Slot, j.Room)
}
