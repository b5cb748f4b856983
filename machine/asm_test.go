//go:build linux && amd64 && !purego

package machine

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/cage"
	"github.com/bpfjit/bpfjit/image"
)

// assemble turns lines of "bytes ; text" into code. Text in Intel syntax is
// compared with what a disassembler makes of the bytes, so it can be trusted;
// text in parentheses is a comment only. Jumps count from their own end.
func assemble(t testing.TB, lines ...string) []byte {
	t.Helper()
	var code []byte
	for line := range strings.Lines(strings.Join(lines, "\n")) {
		bytes, text, _ := strings.Cut(strings.TrimSpace(line), ";")
		b, err := hex.DecodeString(strings.ReplaceAll(bytes, " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		text = strings.TrimSpace(text)
		if text != "" && !strings.HasPrefix(text, "(") {
			in, err := x86asm.Decode(b, 64)
			if err != nil || in.Len != len(b) {
				t.Fatalf("%q: %d bytes decode, error %v", line, in.Len, err)
			}
			if got := x86asm.IntelSyntax(in, 0, nil); got != text {
				t.Fatalf("%q: the bytes are %q", line, got)
			}
		}
		code = append(code, b...)
	}
	return code
}

// word returns the four bytes of a number in hex.
func word(n int) string { return hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

// callHelper is what the compiler emits for the call of helper n.
func callHelper(n int) string {
	return "b8" + word(n) + "; (mov eax, n)\n41 ff 94 24" + word(abi.ContextOffset+abi.OffHelperStub) + "; (call [r12+HelperStub])"
}

// callHelperLen and callSliceLen are the lengths of callHelper, and of what a
// charge jumps to before it jumps back.
const (
	callHelperLen = 13
	callSliceLen  = 14
)

// charge is a CHARGE as the compiler emits it, but with its cold part in line:
//
//	sub r9, n; jae +14; mov r11d, n; call [r12+SliceStub]
func charge(n int) string {
	return "49 81 e9" + word(n) + "; (sub r9, n)\n" +
		"73 0e ; (jae over the call)\n" +
		"41 bb" + word(n) + "; (mov r11d, n)\n" +
		"41 ff 94 24" + word(abi.ContextOffset+abi.OffSliceStub) + "; (call [r12+SliceStub])"
}

const chargeLen = 9 + callSliceLen

// endless is a loop that counts in rax and charges n each time around.
func endless(n int) string {
	return charge(n) + "\n" +
		"48 ff c0 ; inc rax\n" +
		fmt.Sprintf("e9 %s ; (jmp to the charge)", word(-chargeLen-8))
}

// rig has what a test of running code needs.
type rig struct {
	t     testing.TB
	space *cage.Space
	inst  *cage.Instance
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	space := &cage.Space{}
	g := &rig{t: t, space: space, inst: newInstance(t, space)}
	t.Cleanup(func() {
		if err := space.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func newInstance(t testing.TB, space *cage.Space) *cage.Instance {
	t.Helper()
	i, err := space.NewInstance(cage.Window)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// load publishes code with an exception table.
func load(t testing.TB, code []byte, entries ...image.Entry) *image.Image {
	t.Helper()
	r, err := image.Default()
	if err != nil {
		t.Fatal(err)
	}
	im, err := r.Publish(code, image.AppendTable(nil, len(code), entries), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(im.Free)
	return im
}

// run assembles and runs lines on the rig's instance.
func (g *rig) run(in input, lines ...string) Result {
	g.t.Helper()
	return g.runImage(in, load(g.t, assemble(g.t, lines...)))
}

func (g *rig) runImage(in input, im *image.Image) (out Result) {
	g.t.Helper()
	once(g.inst, im, &in, &out)
	return out
}

// input is an Input with what the program gets in R1 and R2.
type input struct {
	Input
	R1, R2 uint64
}

// once runs an image once, and reports how that ended in out.
func once(i *cage.Instance, im *image.Image, in *input, out *Result) {
	var f Frame
	f.Bind(i, im, &in.Input)
	if f.Enter(in.R1, in.R2) {
		out.Result = abi.Result{R0: f.R0(), Used: f.Used(), Slot: -1}
		return
	}
	f.Finish(out)
}

// regs returns the saved x86 registers of the last exit.
func (g *rig) regs() [16]uint64 { return g.inst.Context().Regs }
