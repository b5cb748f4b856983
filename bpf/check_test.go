package bpf_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

// deep is a program of functions that call one another, n deep.
func deep(n int) string {
	s := strings.Repeat("call pc+1\nexit\n", n-1)
	return s + "exit"
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		source     string // the error as a source program, "" if none
		translated string // the same as a translated program; "=" as source
	}{
		{"smallest", "exit", "", ""},
		{"empty", "", "program: has no instructions", "="},
		{"self loop", "goto -1", "", ""},
		{"self loop, gotol", "gotol -1", "", ""},

		// Registers.
		{"AX read", "r0 = r11\nexit", "slot 0 (r0 = r11): src is r11, which is internal", ""},
		{"AX written", "r11 = 1\nexit", "slot 0 (r11 = 1): dst is r11, which is internal", ""},
		{"no such register", "r12 = 1\nexit", "slot 0 (r12 = 1): dst is r12, which does not exist", "="},
		{"R10 moved to", "r10 = r1\nexit", "slot 0 (r10 = r1): dst is r10, which is read-only", "="},
		{"R10 added to", "r10 += 8\nexit", "slot 0 (r10 += 8): dst is r10, which is read-only", "="},
		{"R10 loaded", "r10 = *(u64 *)(r1 + 0)\nexit", "slot 0 (r10 = *(u64 *)(r1 + 0)): dst is r10, which is read-only", "="},
		{"R10 fetched", "r10 = atomic_fetch_add((u64 *)(r1 + 0), r10)\nexit",
			"slot 0 (r10 = atomic_fetch_add((u64 *)(r1 + 0), r10)): src is r10, which is read-only", "="},
		{"R10 exchanged", "w10 = xchg_32(r1 + 0, w10)\nexit",
			"slot 0 (w10 = xchg_32(r1 + 0, w10)): src is r10, which is read-only", "="},
		{"R10 constant", "r10 = 1 ll\nexit", "slot 0 (r10 = ...00000001 ll): dst is r10, which is read-only", "="},
		{"R10 stored", "*(u64 *)(r1 + 0) = r10\nexit", "", ""},
		{"R10 compared", "r0 = cmpxchg_64(r1 + 0, r0, r10)\nexit", "", ""},

		// The frame.
		{"frame, lowest", "r0 = *(u64 *)(r10 - 512)\nexit", "", ""},
		{"frame, highest", "*(u8 *)(r10 - 1) = 0\nexit", "", ""},
		{"frame, below", "r0 = *(u64 *)(r10 - 520)\nexit",
			"slot 0 (r0 = *(u64 *)(r10 - 520)): off is -520: 8 bytes there are outside of the frame of 512 bytes below r10", ""},
		{"frame, edge", "*(u16 *)(r10 - 1) = r1\nexit",
			"slot 0 (*(u16 *)(r10 - 1) = r1): off is -1: 2 bytes there are outside of the frame of 512 bytes below r10", ""},
		{"frame, above", "lock *(u32 *)(r10 + 0) += w1\nexit",
			"slot 0 (lock *(u32 *)(r10 + 0) += w1): off is 0: 4 bytes there are outside of the frame of 512 bytes below r10", ""},
		{"frame, acquire", "r1 = load_acquire((u64 *)(r10 - 513))\nexit",
			"slot 0 (r1 = load_acquire((u64 *)(r10 - 513))): off is -513: 8 bytes there are outside of the frame of 512 bytes below r10", ""},

		// Jumps and ends.
		{"jump too far", "if r1 == 0 goto +1\nexit", "slot 0 (if r1 == 0 goto +1): off leads to slot 2, outside of the program", "="},
		{"jump before", "goto -2\nexit", "slot 0 (goto -2): off leads to slot -1, outside of the program", "="},
		{"gotol too far", "gotol +2147483647\nexit", "slot 0 (gotol +2147483647): imm leads to slot 2147483648, outside of the program", "="},
		{"jump into constant", "if w1 > 1 goto +1\nr1 = 1 ll\nexit", "slot 0 (if w1 > 1 goto +1): off leads into the 64-bit constant of slot 1", "="},
		{"jump to another function", "call pc+2\nif r0 == 1 goto +1\nexit\nexit",
			"slot 1 (if r0 == 1 goto +1): off leads to slot 3, outside of its function",
			""},
		{"no end", "r0 = 0", "slot 0 (r0 = 0): the program can go on behind its last instruction", "="},
		{"ends in a branch", "if r0 == 0 goto -1", "slot 0 (if r0 == 0 goto -1): the program can go on behind its last instruction", "="},
		{"ends in a constant", "r0 = 0 ll", "slot 0 (r0 = ...00000000 ll): the program can go on behind its last instruction", "="},
		{"ends in a call", "call 1", "slot 0 (call 1): the program can go on behind its last instruction", ""},
		{"function without end", "call pc+1\nexit\nr0 = 1",
			"slot 2 (r0 = 1): the function can go on behind its last instruction", "slot 2 (r0 = 1): the program can go on behind its last instruction"},
		{"may_goto", "may_goto +0\nexit", "", "slot 0 (may_goto +0): opcode is jmp.may_goto, which is no instruction of a translated program"},
		{"may_goto too far", "may_goto +1\nexit", "slot 0 (may_goto +1): off leads to slot 2, outside of the program", "-"},

		// Calls.
		{"call outside", "call pc+1\nexit", "slot 0 (call pc+1): imm leads to slot 2, outside of the program", ""},
		{"call before", "call pc-2\nexit", "slot 0 (call pc-2): imm leads to slot -1, outside of the program", ""},
		{"call into constant", "call pc+1\nr0 = 1 ll\nexit", "slot 0 (call pc+1): imm leads into the 64-bit constant of slot 1", ""},
		{"address into constant", "r1 = func pc+2\nr0 = 1 ll\nexit", "slot 0 (r1 = func pc+2): imm leads into the 64-bit constant of slot 2", ""},
		{"recursion", "call pc-1\nexit", "slot 0 (call pc-1): imm recurses: function at slot 0 is running already", ""},
		{"mutual recursion", "call pc+1\nexit\ncall pc+1\nexit\ncall pc-3\nexit",
			"slot 4 (call pc-3): imm recurses: function at slot 2 is running already", ""},
		{"eight frames", deep(8), "", ""},
		{"nine frames", deep(9), "slot 14 (call pc+1): imm calls the function at slot 16: more than 8 frames", ""},
		{"recursion behind an address", "r1 = func pc+2\nexit\ncall pc-1\nexit",
			"slot 3 (call pc-1): imm recurses: function at slot 3 is running already", ""},
		{"own address", "r1 = func pc-1\nexit", "", ""},

		// Constants.
		{"constant", "r0 = 0x1234567890 ll\nexit", "", ""},
		{"map", "r1 = map[fd:3]\nexit", "slot 0 (r1 = map[fd:3]): src makes it ld.map_fd, a reference that no loader has resolved", ""},
		{"map value", "r1 = map[fd:3][0]+8\nexit",
			"slot 0 (r1 = map[fd:3][0]+0): src makes it ld.map_value, a reference that no loader has resolved", ""},
		{"map index", "r1 = map[idx:3]\nexit", "slot 0 (r1 = map[idx:3]): src makes it ld.map_idx, a reference that no loader has resolved", ""},

		// Valid, but not supported.
		{"kfunc", "call kfunc 7\nexit", "slot 0 (call kfunc 7): opcode is jmp.call_kfunc, which is not supported", ""},
		{"per-cpu", "r1 = &(void __percpu *)(r1)\nexit",
			"slot 0 (r1 = &(void __percpu *)(r1)): opcode is alu64.percpu, which is not supported", ""},
		{"cast to user", "r1 = addr_space_cast(r2, 1, 0)\nexit",
			"slot 0 (r1 = addr_space_cast(r2, 1, 0)): opcode is alu64.cast_user, which is not supported", ""},
		{"cast to kernel", "r1 = addr_space_cast(r2, 0, 1)\nexit",
			"slot 0 (r1 = addr_space_cast(r2, 0, 1)): opcode is alu64.cast_kern, which is not supported",
			"slot 0 (r1 = addr_space_cast(r2, 0, 1)): imm is 1, must be one of 0, 65536"},
		{"BTF id", "r1 = btf[7]\nexit", "slot 0 (r1 = btf[7]): opcode is ld.btf_id, which is not supported", ""},
		{"LD_ABS", "r0 = *(u16 *)skb[12]\nexit", "slot 0 (r0 = *(u16 *)skb[12]): opcode is ld.abs.h, which is not supported",
			"slot 0 (r0 = *(u16 *)skb[12]): opcode is ld.abs.h, which is no instruction of a translated program"},
		{"LD_IND", "r0 = *(u8 *)skb[r1 + 12]\nexit", "slot 0 (r0 = *(u8 *)skb[r1 + 12]): opcode is ld.ind.b, which is not supported", "-"},

		// Internal.
		{"tail call", "tail_call 1\nexit", "slot 0 (tail_call 1): opcode is jmp.tail_call, which is no instruction of a source program", ""},
		{"charge", "charge 1\nexit", "slot 0 (charge 1): opcode is jmp.charge, which is no instruction of a source program",
			"slot 0 (charge 1): opcode is jmp.charge, which is no instruction of a translated program"},
		{"nospec", "nospec\nexit", "slot 0 (nospec): opcode is nospec, which is no instruction of a source program", ""},
		{"probe", "r1 = *(u8 *)(r1 + 0) probe\nexit",
			"slot 0 (r1 = *(u8 *)(r1 + 0) probe): opcode is ldx.probe.b, which is no instruction of a source program", ""},
		{"arena", "lock *(u64 *)(r1 + 0) += r1 arena\nexit",
			"slot 0 (lock *(u64 *)(r1 + 0) += r1 arena): opcode is arena64.add, which is no instruction of a source program", ""},
		{"callx", "callx r1\nexit", "", "slot 0 (callx r1): opcode is jmp.callx, which is no instruction of a translated program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testprog.Parse(t, tt.text)
			if tt.translated == "=" {
				tt.translated = tt.source
			}
			checkError(t, p, bpf.Source, tt.source)
			if tt.translated != "-" {
				checkError(t, p, bpf.Translated, tt.translated)
			}
		})
	}
}

func checkError(t *testing.T, p *bpf.Program, d bpf.Dialect, want string) {
	t.Helper()
	err := bpf.Check(p, d)
	got := ""
	if err != nil {
		got = err.Error()
		if e := new(bpf.Error); !errors.As(err, &e) {
			t.Errorf("%v: the error is a %T", d, err)
		}
	}
	if got != want {
		t.Errorf("%v: error\n\t%s\nwant\n\t%s", d, got, want)
	}
	if unsupported := strings.Contains(want, "not supported"); errors.Is(err, bpf.ErrUnsupported) != unsupported ||
		errors.Is(err, errors.ErrUnsupported) != unsupported {
		t.Errorf("%v: unsupported is %v, want %v", d, !unsupported, unsupported)
	}
}

// TestCheckRaw has programs that no listing shows.
func TestCheckRaw(t *testing.T) {
	exit := bpf.Insn{Op: abi.OpExit}
	second := bpf.Insn{Op: abi.OpLdImm64}
	for _, tt := range []struct {
		insns              []bpf.Insn
		source, translated string
	}{
		{[]bpf.Insn{{Op: 0xff, Regs: 1}, exit}, "slot 0 (op 0xff dst 1 src 0 off 0 imm 0): opcode is 0xff, which is no instruction", "="},
		{[]bpf.Insn{{Op: 0x0d, Regs: 1}, exit}, "slot 0 (op 0x0d dst 1 src 0 off 0 imm 0): opcode is 0x0d, which is no instruction", "="},
		{[]bpf.Insn{{}, exit}, "slot 0: opcode is the second half of a 64-bit constant without the first", "="},
		{[]bpf.Insn{second}, "slot 0 (r0 = ...00000000 ll): the second half of the 64-bit constant is missing", "="},
		{[]bpf.Insn{second, exit}, "slot 1 (exit): opcode is 0x95, must be 0x00: the second half of the 64-bit constant", "="},
		{[]bpf.Insn{second, {Regs: 2}, exit}, "slot 1 (op 0x00 dst 2 src 0 off 0 imm 0): dst is 2, must be 0", "="},
		{[]bpf.Insn{second, {Op: 0x85, Regs: 0x20}, exit}, "slot 1 (call kfunc 0): opcode is 0x85, must be 0x00: the second half of the 64-bit constant", "="},
		{[]bpf.Insn{{Op: 0x18, Regs: 0x40, Imm: -1}, {Imm: 3}, exit}, "slot 1 (; second half): imm is 3, must be 0", ""},
		{[]bpf.Insn{{Op: 0x18, Regs: 0x70}, {}, exit}, "slot 0 (op 0x18 dst 0 src 7 off 0 imm 0): src is 7, must be one of 0, 4",
			"slot 0 (op 0x18 dst 0 src 7 off 0 imm 0): src is 7, must be one of 0, 1, 2, 3, 4, 5, 6"},
		{[]bpf.Insn{{Op: 0x85, Regs: 0x10, Off: 2, Imm: 0}, exit}, "slot 0 (call pc+0): off is 2, must be 0", ""},
		{[]bpf.Insn{{Op: 0xbc, Regs: 1, Imm: 1}, exit}, "slot 0 (w1 = w0): imm is 1, must be 0", ""},
		{[]bpf.Insn{{Op: 0xbf, Regs: 1, Off: 7}, exit}, "slot 0 (op 0xbf dst 1 src 0 off 7 imm 0): off is 7, must be one of 0, 8, 16, 32",
			"slot 0 (op 0xbf dst 1 src 0 off 7 imm 0): off is 7, must be one of 0, 8, 16, 32, -1, 1"},
		{[]bpf.Insn{{Op: 0xc3, Imm: 0x22}, exit}, "slot 0 (op 0xc3 dst 0 src 0 off 0 imm 34): imm is 34, must be one of 0, 64, 80, 160, 1, 65, 81, 161, 225, 241, 256, 272", "="},
	} {
		if tt.translated == "=" {
			tt.translated = tt.source
		}
		p := &bpf.Program{Insns: tt.insns}
		checkError(t, p, bpf.Source, tt.source)
		checkError(t, p, bpf.Translated, tt.translated)
	}
}

func TestCheckProgram(t *testing.T) {
	exit := []bpf.Insn{{Op: abi.OpExit}}
	load := testprog.Parse(t, "r1 = *(s8 *)(r2 + 0)\nr1 = r2\nexit").Insns
	big := make([]bpf.Insn, bpf.MaxSlots+1)
	for i := range big {
		big[i] = exit[0]
	}
	for _, tt := range []struct {
		p    bpf.Program
		want string
	}{
		{bpf.Program{Insns: big[1:]}, ""},
		{bpf.Program{Insns: big}, "program: has 1048577 slots, more than 1048576"},
		{bpf.Program{Insns: exit, Flags: []bpf.Flag{}}, "program: has 0 flags for 1 slots"},
		{bpf.Program{Insns: exit, Origin: []int32{1, 2}}, "program: has 2 origins for 1 slots"},
		{bpf.Program{Insns: exit, Origin: []int32{1}, Index: []int32{0, 0, 1}}, "program: has 1 origins for 2 slots"},
		{bpf.Program{Insns: exit, Index: []int32{0, 2}}, "program: has an index that doesn't fit 1 slots"},
		{bpf.Program{Insns: exit, Index: []int32{}}, "program: has an index that doesn't fit 1 slots"},
		{bpf.Program{Insns: load, Flags: []bpf.Flag{bpf.Probe, 0, 0}}, ""},
		{bpf.Program{Insns: load, Flags: []bpf.Flag{0, bpf.Probe, 0}},
			"slot 1 (r1 = r2): opcode is alu64.mov.x, but the slot is marked as a fault-tolerant load"},
	} {
		checkError(t, &tt.p, bpf.Source, tt.want)
	}
}

// TestReservedFields puts a wrong value into every field of every form that
// has but one right one, in both dialects: the error names slot and field.
func TestReservedFields(t *testing.T) {
	names := [4]string{"dst", "src", "off", "imm"}
	tried := 0
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if f == tables.FormLdSecond {
			continue
		}
		for _, d := range []bpf.Dialect{bpf.Source, bpf.Translated} {
			if d == bpf.Source && form.Source != tables.Allowed || d == bpf.Translated && form.Translated != tables.Allowed {
				continue
			}
			for k, o := range [4]tables.Operand{form.Dst, form.Src, form.Off, form.Imm} {
				if !o.Fixed() {
					continue
				}
				bad := sample(f)
				if k < 2 {
					bad[0].Regs ^= 9 << (4 * k)
				} else if k == 2 {
					bad[0].Off ^= 0x2004
				} else {
					bad[0].Imm ^= 0x20006
				}
				tried++
				p := &bpf.Program{Insns: append([]bpf.Insn{{Op: 0xb7}}, append(bad, bpf.Insn{Op: abi.OpExit})...)}
				var e *bpf.Error
				if err := bpf.Check(p, d); !errors.As(err, &e) || e.Slot != 1 || e.Field != names[k] || !strings.Contains(e.Reason, "must be") {
					t.Errorf("%v, %v with a wrong %s: error %v", d, f, names[k], err)
				}
			}
		}
	}
	t.Logf("%d wrong fields refused", tried)
}

// TestConformanceNegative refuses the public programs whose reserved fields
// aren't 0, and names slot and field.
func TestConformanceNegative(t *testing.T) {
	for _, r := range testprog.Negative(t) {
		var e *bpf.Error
		if err := bpf.Check(&bpf.Program{Insns: r.Insns}, bpf.Source); !errors.As(err, &e) || e.Slot != 0 || e.Field != r.Field() {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

// TestConformanceOpen accepts the public programs, and finds no form in them
// that is of another group than the suite says. The suite counts neg64 as
// base32, though RFC 9669 puts all of ALU64 into base64.
func TestConformanceOpen(t *testing.T) {
	for _, r := range testprog.Open(t) {
		if err := bpf.Check(&bpf.Program{Insns: r.Insns}, bpf.Source); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		for _, i := range r.Insns {
			f, _ := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
			if g := tables.Forms[f].Group; g != "" && f != tables.FormAlu64Neg && !slices.Contains(r.Groups, g) {
				t.Errorf("%s has %v of group %s, the suite says %v", r.Name, f, g, r.Groups)
			}
		}
	}
}

// TestGoldenTranslated accepts what a kernel gave its JIT.
func TestGoldenTranslated(t *testing.T) {
	forms := map[tables.Form]bool{}
	for _, r := range testprog.Golden(t) {
		if err := bpf.Check(&bpf.Program{Insns: r.Insns}, bpf.Translated); err != nil {
			t.Error(err)
		}
		for _, i := range r.Insns {
			f, _ := tables.FormOf(i.Op, i.Regs, i.Off, i.Imm)
			forms[f] = true
		}
	}
	var absent []string
	for f := tables.Form(1); f < tables.NumForms; f++ {
		if !forms[f] && tables.Forms[f].Translated == tables.Allowed {
			absent = append(absent, fmt.Sprint(f))
		}
	}
	t.Logf("%d forms in the golden file; not there: %v", len(forms), absent)
}

// TestRandomAccepted accepts programs that are well formed by construction.
func TestRandomAccepted(t *testing.T) {
	r := testprog.Rand(testprog.Seed(t), 0)
	for range 2000 {
		p := randomProgram(r, 1+r.IntN(40))
		if err := bpf.Check(p, bpf.Source); err != nil {
			var s strings.Builder
			p.List(&s, bpf.ListOptions{Numbers: true})
			t.Fatalf("%v in\n%s", err, s.String())
		}
	}
}
