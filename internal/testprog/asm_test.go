package testprog

import (
	"strings"
	"testing"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/google/go-cmp/cmp"
)

// TestAssemble reads what the assembler makes as the listing prints it.
func TestAssemble(t *testing.T) {
	insns := MustAssemble(
		Mov64(R0, 5), Mov64(R6, R1), Add32(R0, 0xffffffff), SDiv64(R0, R6), SMod32(R0, -3),
		Neg64(R0), MovSX64(16, R2, R3), MovSX32(8, R2, R3), ToBE(16, R4), ToLE(64, R4), Swap(32, R4),
		Const64(R1, 0x1122334455667788),
		Label("loop"),
		Load(W, R2, R1, 4), LoadSX(H, R2, R1, -2), Store(B, R10, -1, 7), Store(DW, R10, -8, R2),
		Atomic(DW, AtomicAdd|Fetch, R10, -8, R3), Atomic(W, AtomicCmpXch, R10, -8, R3),
		LoadAcquire(B, R2, R1, 3), StoreRelease(H, R1, 2, R2),
		JumpIf(R0, SLE, -1, "loop"), JumpIf32(R0, SET, R2, "out"), Goto("loop"), GotoL("out"), MayGoto("out"),
		Call(5), CallX(R3), CallFunc("f"), FuncAddr(R1, "f"),
		Block(Label("out"), Repeat(2, Exit())),
		Label("f"), Raw(abi.Insn{Op: abi.OpExit}),
	)
	var got []string
	for i := 0; i < len(insns); i++ {
		if insns[i].Op == abi.OpLdImm64 {
			i++ // the listing of a slot shows one half
			continue
		}
		got = append(got, bpf.Text(insns[i]))
	}
	want := strings.Split(strings.TrimSpace(`
r0 = 5
r6 = r1
w0 += -1
r0 s/= r6
w0 s%= -3
r0 = -r0
r2 = (s16)r3
w2 = (s8)w3
r4 = be16 r4
r4 = le64 r4
r4 = bswap32 r4
r2 = *(u32 *)(r1 + 4)
r2 = *(s16 *)(r1 - 2)
*(u8 *)(r10 - 1) = 7
*(u64 *)(r10 - 8) = r2
r3 = atomic_fetch_add((u64 *)(r10 - 8), r3)
w0 = cmpxchg_32(r10 - 8, w0, w3)
w2 = load_acquire((u8 *)(r1 + 3))
store_release((u16 *)(r1 + 2), w2)
if r0 s<= -1 goto -9
if w0 & w2 goto +8
goto -11
gotol +6
may_goto +5
call 5
callx r3
call pc+4
exit
exit
exit`), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("listing (-want +got):\n%s", d)
	}
	if err := bpf.Check(&bpf.Program{Insns: insns}, bpf.Source); err != nil {
		t.Error(err)
	}
	for _, s := range bpfSlots(insns, abi.OpLdImm64) {
		if s.Src() == abi.Imm64Value && s.Imm != 0x55667788 || s.Src() == abi.Imm64Func && s.Imm != 3 {
			t.Errorf("64-bit constant: %+v", s)
		}
	}
}

func bpfSlots(insns []abi.Insn, op uint8) (found []abi.Insn) {
	for _, in := range insns {
		if in.Op == op {
			found = append(found, in)
		}
	}
	return found
}

func TestAssembleErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		items []Item
		want  string
	}{
		{"missing", []Item{Goto("nowhere"), Exit()}, `testprog: no label "nowhere"`},
		{"twice", []Item{Label("a"), Exit(), Block(Label("a"))}, `testprog: label "a" is defined twice`},
		{"far", []Item{Goto("end"), Repeat(0x8000, Mov64(R0, 0)), Label("end"), Exit()}, `testprog: label "end" is 32768 slots away`},
	} {
		t.Run(test.name, func(t *testing.T) {
			insns, err := Assemble(test.items...)
			if err == nil || err.Error() != test.want || insns != nil {
				t.Errorf("got %d slots and error %v, want %s", len(insns), err, test.want)
			}
		})
	}
	if _, err := Assemble(GotoL("end"), Repeat(0x8000, Mov64(R0, 0)), Label("end"), Exit()); err != nil {
		t.Errorf("gotol reaches further: %v", err)
	}
}
