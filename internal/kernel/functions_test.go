//go:build linux && amd64

package kernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/kernel"
	"github.com/bpfjit/bpfjit/internal/oracle"
	. "github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/tables"
)

func load(t *testing.T, s *kernel.Spec) *kernel.Program {
	t.Helper()
	p, err := kernel.Load(s)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func functions(t *testing.T, s *kernel.Spec) []kernel.Function {
	t.Helper()
	p := load(t, s)
	fs, err := p.Functions()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		if err := bpf.Check(&bpf.Program{Insns: f.Insns}, bpf.Translated); err != nil {
			t.Errorf("function %d: %v", f.Index, err)
		}
	}
	// What was restored is right if it compiles to the same bytes.
	c, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oracle.Compare(c, fs); err != nil {
		t.Error(err)
	}
	return fs
}

func newMap(t *testing.T, s kernel.MapSpec) *kernel.Map {
	t.Helper()
	m, err := kernel.NewMap(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func typeID(t *testing.T, name string, kind kernel.BTFKind) int32 {
	t.Helper()
	id, err := kernel.TypeID(name, kind)
	if err != nil {
		t.Skip(err)
	}
	return int32(id)
}

// hasForm says whether a function has an instruction of a form such as
// "ldx.probe.w".
func hasForm(f *kernel.Function, name string) bool {
	for _, in := range f.Insns {
		form, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
		if tables.Forms[form].Name == name {
			return true
		}
	}
	return false
}

func TestConstants(t *testing.T) {
	kernel.Require(t)
	c, err := kernel.ReadConstants()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("returns through %s, tail calls through %s; %+v", c.ReturnThunkName, c.IndirectThunkName, *c)
	syms, err := kernel.ReadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := syms.Addr("__bpf_call_base"); !ok || a != c.CallBase {
		t.Errorf("the base of calls is %#x, the symbol %#x", c.CallBase, a)
	}
	if c.ReturnThunk != 0 && c.ReturnThunkName == "" {
		t.Errorf("no symbol at the return thunk, %#x", c.ReturnThunk)
	}
	if c.MaxEntriesOff == 0 || c.ProgramsOff == 0 || c.FunctionOff == 0 || c.TailCallEntry < 11 {
		t.Errorf("layout of prog arrays: %+v", c)
	}
}

func TestCalls(t *testing.T) {
	kernel.Require(t)
	for _, debug := range []bool{false, true} {
		fs := functions(t, &kernel.Spec{Type: kernel.XDP, Name: "calls", Debug: debug, Insns: MustAssemble(
			Mov64(R6, R1), Call(5), CallFunc("f"), CallFunc("g"), Mov64(R0, 0), Exit(),
			Label("f"), Store(DW, R10, -24, 1), CallFunc("g"), Exit(),
			Label("g"), Mov64(R0, 3), Exit(),
		)})
		if len(fs) != 3 {
			t.Fatalf("%d functions, want 3", len(fs))
		}
		c, err := kernel.ReadConstants()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			name    string
			depth   int
			callees []int
		}{{"main", 0, []int{-1, 1, 2}}, {"f6", 24, []int{2}}, {"f9", 0, nil}} {
			f := &fs[i]
			if f.Index != i || f.Subprog != (i > 0) || f.StackDepth != want.depth || f.Return != c.ReturnThunk || (f.Name == want.name) != debug {
				t.Errorf("debug %v: %+v, want %+v", debug, f, want)
			}
			var callees []int
			for _, call := range f.Calls {
				callees = append(callees, call.Callee)
				// The displacement must lead where the call says.
				if !slices.Contains(targets(f), call.Target) {
					t.Errorf("debug %v: no call in the code of function %d leads to %#x", debug, i, call.Target)
				}
				if call.Callee >= 0 && call.Target != fs[call.Callee].Addr {
					t.Errorf("debug %v: %+v, but the function is at %#x", debug, call, fs[call.Callee].Addr)
				}
			}
			if !slices.Equal(callees, want.callees) {
				t.Errorf("debug %v: function %d calls %v, want %v", debug, i, callees, want.callees)
			}
			if (f.Offsets != nil) != debug {
				t.Errorf("debug %v: offsets %v", debug, f.Offsets)
			}
		}
		if name := fs[0].Calls[0].Name; name != "bpf_ktime_get_ns" {
			t.Errorf("the helper is %q", name)
		}
	}
}

// targets are the places that anything like "call rel32" leads to.
func targets(f *kernel.Function) (list []uint64) {
	for at := 0; at+5 <= len(f.Jited); at++ {
		if f.Jited[at] == 0xe8 {
			rel := int32(binary.LittleEndian.Uint32(f.Jited[at+1:]))
			list = append(list, f.Addr+uint64(at)+5+uint64(int64(rel)))
		}
	}
	return list
}

func TestMapsAndConstants(t *testing.T) {
	kernel.Require(t)
	m := newMap(t, kernel.MapSpec{Type: kernel.ArrayMap, KeySize: 4, ValueSize: 64, MaxEntries: 1})
	fs := functions(t, &kernel.Spec{Type: kernel.XDP, Debug: true, Insns: MustAssemble(
		MapFD(R1, m.FD()), MapValue(R2, m.FD(), 8), Const64(R3, 0x1122334455667788),
		FuncAddr(R2, "callback"), Mov64(R1, 3), Mov64(R3, 0), Mov64(R4, 0), Call(181), // bpf_loop
		Mov64(R0, 0), Exit(),
		Label("callback"), Mov64(R0, 0), Exit(),
	)})
	var values []uint64
	for s, in := range fs[0].Insns {
		if in.Op == abi.OpLdImm64 {
			if in.Src() != abi.Imm64Value {
				t.Errorf("slot %d has source %d", s, in.Src())
			}
			values = append(values, uint64(uint32(in.Imm))|uint64(uint32(fs[0].Insns[s+1].Imm))<<32)
		}
	}
	if len(values) != 4 || len(fs) != 2 {
		t.Fatalf("%d constants, %d functions", len(values), len(fs))
	}
	for i, v := range values[:3] { // movabs
		b := binary.LittleEndian.AppendUint64(nil, v)
		if !bytes.Contains(fs[0].Jited, b) {
			t.Errorf("constant %d, %#x, isn't in the code", i, v)
		}
	}
	if values[2] != 0x1122334455667788 || values[3] != fs[1].Addr {
		t.Errorf("constants %#x; the callback is at %#x", values, fs[1].Addr)
	}
}

func TestMapElements(t *testing.T) {
	kernel.Require(t)
	m := newMap(t, kernel.MapSpec{Type: kernel.HashMap, KeySize: 2, ValueSize: 3, MaxEntries: 4})
	if err := m.Update([]byte{1, 2}, []byte{3, 4, 5}); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Lookup([]byte{1, 2}); err != nil || !bytes.Equal(v, []byte{3, 4, 5}) {
		t.Errorf("got %v, %v", v, err)
	}
	if err := m.Delete([]byte{1, 2}); err != nil {
		t.Error(err)
	}
	if v, err := m.Lookup([]byte{1, 2}); err == nil {
		t.Errorf("deleted, and yet %v", v)
	}
	if err := m.Update([]byte{1}, []byte{3, 4, 5}); err == nil {
		t.Error("a key that is too short")
	}
}

func TestTailCalls(t *testing.T) {
	kernel.Require(t)
	m := newMap(t, kernel.MapSpec{Type: kernel.ProgArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	target := load(t, &kernel.Spec{Type: kernel.XDP, Insns: MustAssemble(Mov64(R0, 77), Exit())})
	if err := m.SetProgram(2, target); err != nil {
		t.Fatal(err)
	}
	caller := &kernel.Spec{Type: kernel.XDP, Insns: MustAssemble(
		Mov64(R6, R1), Call(7), And64(R0, 1), Mov64(R3, R0),
		Mov64(R1, R6), MapFD(R2, m.FD()), Call(12), // an index that isn't known
		Mov64(R1, R6), MapFD(R2, m.FD()), Mov64(R3, 1), Call(12), // an empty one
		CallFunc("f"), Mov64(R1, R6), MapFD(R2, m.FD()), Mov64(R3, 2), Call(12), // one that is taken
		Mov64(R0, 1), Exit(),
		Label("f"), Mov64(R0, 1), Exit(),
	)}
	fs := functions(t, caller)
	var kinds []int32
	for _, in := range fs[0].Insns {
		if in.Op == abi.OpTailCall {
			kinds = append(kinds, in.Imm)
		}
	}
	if !slices.Equal(kinds, []int32{0, 1, 2}) {
		t.Errorf("tail calls %v, want one indirect and two direct ones", kinds)
	}
	if !fs[0].TailCallReachable || fs[1].TailCallReachable {
		t.Errorf("reachable by tail calls: %v, %v", fs[0].TailCallReachable, fs[1].TailCallReachable)
	}
	r, err := load(t, caller).Run(kernel.RunOptions{Data: make([]byte, 64)})
	if err != nil || r.Return != 77 {
		t.Errorf("result %+v, %v", r, err)
	}
}

// TestFeatures: what only the kernel has.
func TestFeatures(t *testing.T) {
	kernel.Require(t)
	t.Run("faulting load", func(t *testing.T) {
		cast := typeID(t, "bpf_rdonly_cast", kernel.BTFFunc)
		task := typeID(t, "task_struct", kernel.BTFStruct)
		spec := &kernel.Spec{Type: kernel.RawTracepoint, Debug: true, Insns: MustAssemble(
			Mov64(R1, 0), Mov64(R2, int(task)), CallKfunc(cast),
			Load(W, R1, R0, 40), LoadSX(W, R2, R0, 40), Load(DW, R3, R10, -8),
			Mov64(R0, R1), Or64(R0, R2), Exit(),
		)}
		fs := functions(t, spec)
		for _, want := range []string{"ldx.probe.w", "ldx.probesx.w", "ldx.mem.dw"} {
			if !hasForm(&fs[0], want) {
				t.Errorf("no %s", want)
			}
		}
		spec.Debug = false
		if _, err := load(t, spec).Functions(); !errors.Is(err, kernel.ErrHidden) {
			t.Errorf("without debug information: %v, want %v", err, kernel.ErrHidden)
		}
	})
	t.Run("exception", func(t *testing.T) {
		throw := typeID(t, "bpf_throw", kernel.BTFFunc)
		insns := MustAssemble(
			Mov64(R6, 1), Load(W, R7, R1, 0), JumpIf(R7, EQ, 5, "throw"), Mov64(R0, 0), Exit(),
			Label("throw"), Mov64(R1, 3), CallKfunc(throw), Mov64(R0, 0), Exit(),
			Label("callback"), Mov64(R6, R1), Mov64(R0, 2), Exit(),
		)
		callback := len(insns) - 3
		fs := functions(t, &kernel.Spec{Type: kernel.SchedCLS, Debug: true, Insns: insns, ExceptionCallback: callback})
		if len(fs) != 2 || !fs[0].ExceptionBoundary || fs[0].ExceptionCallback || !fs[1].ExceptionCallback {
			t.Errorf("%d functions: %+v", len(fs), fs)
		}
		fs = functions(t, &kernel.Spec{Type: kernel.SchedCLS, Insns: insns[:callback]})
		if len(fs) != 1 || !fs[0].ExceptionBoundary || fs[0].Calls[0].Name != "bpf_throw" {
			t.Errorf("%d functions: %+v", len(fs), fs)
		}
	})
	t.Run("private stack", func(t *testing.T) {
		fs := functions(t, &kernel.Spec{Type: kernel.Kprobe, Insns: MustAssemble(
			Store(DW, R10, -128, 1), Load(DW, R0, R10, -128), Exit(),
		)})
		if !fs[0].PrivateStack || fs[0].PrivateFrame == 0 || fs[0].StackDepth != 0 {
			t.Errorf("%+v", fs[0].Params)
		}
	})
	t.Run("arena", func(t *testing.T) {
		const user = 1 << 44
		m := newMap(t, kernel.MapSpec{Type: kernel.ArenaMap, MaxEntries: 4, Flags: kernel.MapFlagMmapable, Extra: user})
		spec := &kernel.Spec{Type: kernel.Syscall, Flags: kernel.FlagSleepable, Debug: true, Insns: MustAssemble(
			MapFD(R1, m.FD()), Mov64(R1, 4096), Raw(abi.Insn{Op: 0xbf, Regs: 0x11, Off: 1, Imm: 1}), // to the kernel's side
			Load(W, R2, R1, 8), LoadSX(B, R3, R1, 4), Store(H, R1, 2, R3), Store(DW, R1, 16, -1), Atomic(DW, AtomicAdd, R1, 8, R2),
			Store(DW, R10, -8, R2), Raw(abi.Insn{Op: 0xbf, Regs: 0x14, Off: 1, Imm: 0x10000}), // and back
			Mov64(R0, 0), Exit(),
		)}
		fs := functions(t, spec)
		for _, want := range []string{"ldx.probe32.w", "ldx.probe32sx.b", "stx.probe32.h", "st.probe32.dw", "arena64.add", "stx.mem.dw", "alu64.cast_user"} {
			if !hasForm(&fs[0], want) {
				t.Errorf("no %s", want)
			}
		}
		if !fs[0].Arena || fs[0].ArenaBase == 0 || fs[0].ArenaUser != user {
			t.Errorf("%+v", fs[0].Params)
		}
	})
}

func TestRun(t *testing.T) {
	kernel.Require(t)
	swap := load(t, &kernel.Spec{Type: kernel.XDP, Insns: MustAssemble(
		Load(W, R2, R1, 0), Load(W, R3, R1, 4), Mov64(R4, R2), Add64(R4, 14), JumpIf(R4, GT, R3, "out"),
		Load(B, R5, R2, 0), Add64(R5, 1), Store(B, R2, 0, R5),
		Label("out"), Mov64(R0, 0x80000001), Exit(),
	)})
	data := make([]byte, 64)
	r, err := swap.Run(kernel.RunOptions{Data: data, Repeat: 5})
	if err != nil || r.Return != 0x80000001 || len(r.Data) != 64 || r.Data[0] != 5 || data[0] != 0 {
		t.Errorf("XDP: %+v, %v", r, err)
	}
	memory := load(t, &kernel.Spec{Type: kernel.Syscall, Flags: kernel.FlagSleepable, Insns: MustAssemble(
		Load(DW, R2, R1, 8), Add64(R2, 1), Store(DW, R1, 8, R2), Mov64(R0, 7), Exit(),
	)})
	ctx := make([]byte, 16)
	r, err = memory.Run(kernel.RunOptions{Ctx: ctx})
	if err != nil || r.Return != 7 || r.Ctx[8] != 1 || ctx[8] != 0 {
		t.Errorf("syscall: %+v, %v", r, err)
	}
	args := load(t, &kernel.Spec{Type: kernel.RawTracepoint, Insns: MustAssemble(Load(DW, R0, R1, 8), Exit())})
	r, err = args.Run(kernel.RunOptions{Ctx: append(make([]byte, 8), 42, 0, 0, 0, 0, 0, 0, 0)})
	if err != nil || r.Return != 42 {
		t.Errorf("raw tracepoint: %+v, %v", r, err)
	}
	args.Close()
	if _, err := args.Run(kernel.RunOptions{}); err == nil {
		t.Error("a run of a closed program")
	}
	if _, err := args.Functions(); err == nil {
		t.Error("the functions of a closed program")
	}
	if err := args.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestRefused(t *testing.T) {
	kernel.Require(t)
	var le *kernel.LoadError
	_, err := kernel.Load(&kernel.Spec{Type: kernel.XDP, Insns: MustAssemble(Exit())})
	if !errors.As(err, &le) || le.ByJIT() || le.Log == "" {
		t.Errorf("a program without a result: %v", err)
	}
	for name, insns := range map[string][]abi.Insn{"restless": Restless(), "shifting": Shifting()} {
		_, err := kernel.Load(&kernel.Spec{Type: kernel.SocketFilter, Insns: insns})
		if !errors.As(err, &le) || !le.ByJIT() {
			t.Errorf("%s: %v, want a refusal by the JIT", name, err)
		}
	}
	for _, h := range []int{4, 16, 100} {
		functions(t, &kernel.Spec{Type: kernel.SocketFilter, Insns: Ladder(h)})
	}
	if _, err := kernel.Load(&kernel.Spec{Type: kernel.XDP}); err == nil {
		t.Error("no instructions")
	}
}
