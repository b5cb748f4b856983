package bpfjit

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
)

// wire returns slots as they are in an object.
func wire(insns []bpf.Insn) []byte {
	var b []byte
	for _, in := range insns {
		b = append(b, in.Op, in.Regs)
		b = binary.LittleEndian.AppendUint16(b, uint16(in.Off))
		b = binary.LittleEndian.AppendUint32(b, uint32(in.Imm))
	}
	return b
}

// decode has cilium read slots as it reads those of an object.
func decode(t testing.TB, code []byte) (asm.Instructions, error) {
	t.Helper()
	return asm.AppendInstructions(nil, bytes.NewReader(code), binary.LittleEndian, "linux")
}

// TestConvertObjects compares what comes out of convert with the bytes of the
// object: all must be equal but for what a relocation names.
func TestConvertObjects(t *testing.T) {
	objects, err := filepath.Glob("testdata/*/*.o")
	if err != nil {
		t.Fatal(err)
	}
	more, _ := filepath.Glob("testdata/*.o")
	compared := 0
	for _, path := range append(append(objects, more...), "cmd/bpfjit/example/filter.bpf.o") {
		spec, err := ebpf.LoadCollectionSpec(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		symbols, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		for name, prog := range spec.Programs {
			src, err := convert(prog.Instructions)
			if err != nil {
				if filepath.Base(path) != "unsupported.bpf.o" {
					t.Errorf("%s, %s: %v", path, name, err)
				}
				continue
			}
			code := wire(src.Program.Insns)
			for _, sym := range symbols {
				if sym.Name != name {
					continue
				}
				section := f.Sections[sym.Section]
				data, err := section.Data()
				if err != nil {
					t.Fatal(err)
				}
				want := data[sym.Value : sym.Value+sym.Size]
				got := code[:len(want)]
				for i := 0; i < len(want); i += 8 {
					op, regs := want[i], want[i+1]
					if op == abi.OpLdImm64 || op == abi.OpCall && regs>>4 == abi.CallLocal {
						if op == abi.OpLdImm64 {
							i += 8
						}
						continue // may be relocated
					}
					if !bytes.Equal(got[i:i+8], want[i:i+8]) {
						t.Errorf("%s, %s: slot %d is % x, in the object % x", path, name, i/8, got[i:i+8], want[i:i+8])
					}
					compared++
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d slots compared", compared)
	}
}

// TestConvertReferences resolves what instructions name.
func TestConvertReferences(t *testing.T) {
	src, err := convert(asm.Instructions{
		asm.Mov.Imm(asm.R0, 0).WithSymbol("main").WithSource(asm.Comment("begin")),
		asm.LoadMapPtr(asm.R1, 0).WithReference("table"),
		asm.LoadMapValue(asm.R2, 0, 16).WithReference(".data"),
		asm.JNE.Imm(asm.R0, 1, "out"),
		asm.Call.Label("callee"),
		asm.LongJump("out"),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R3, Src: asm.PseudoFunc, Constant: -1}.WithReference("callee"),
		asm.Return().WithSymbol("out"),
		asm.Mov.Reg(asm.R0, asm.R1).WithSymbol("callee"),
		asm.Return(),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []bpf.Insn{
		{Op: 0xb7},
		{Op: 0x18, Regs: 0x11}, {},
		{Op: 0x18, Regs: 0x22}, {Imm: 16},
		{Op: 0x55, Off: 4, Imm: 1},
		{Op: 0x85, Regs: 0x10, Imm: 4},
		{Op: 0x06, Imm: 2},
		{Op: 0x18, Regs: 0x43, Imm: 2}, {},
		{Op: 0x95},
		{Op: 0xbf, Regs: 0x10},
		{Op: 0x95},
	}
	// The last 64-bit load is a function pointer: 2 slots on from the next.
	if diff := cmp.Diff(want, src.Program.Insns); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]MapRef{{1, "table", false, 0}, {3, ".data", true, 16}}, src.Maps); diff != "" {
		t.Errorf("maps (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[int]string{0: "main", 11: "callee"}, src.funcs); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
	for slot, want := range map[int]string{0: "begin", 5: "begin", 9: "begin", 10: "", 11: "", 12: ""} {
		if got := src.lines.at(slot).Text; got != want {
			t.Errorf("line of slot %d is %q, want %q", slot, got, want)
		}
	}
}

// TestConvertFolded makes the instructions whose opcode cilium extends.
func TestConvertFolded(t *testing.T) {
	for _, test := range []struct {
		ins  asm.Instruction
		want bpf.Insn
	}{
		{asm.SDiv.Imm(asm.R1, 2), bpf.Insn{Op: 0x37, Regs: 1, Off: 1, Imm: 2}},
		{asm.SMod.Reg32(asm.R1, asm.R2), bpf.Insn{Op: 0x9c, Regs: 0x21, Off: 1}},
		{asm.MovSX8.Reg(asm.R1, asm.R2), bpf.Insn{Op: 0xbf, Regs: 0x21, Off: 8}},
		{asm.MovSX16.Reg32(asm.R1, asm.R2), bpf.Insn{Op: 0xbc, Regs: 0x21, Off: 16}},
		{asm.MovSX32.Reg(asm.R1, asm.R2), bpf.Insn{Op: 0xbf, Regs: 0x21, Off: 32}},
		{asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 8), bpf.Insn{Op: 0xdb, Regs: 0x21, Off: 8}},
		{asm.FetchXor.Mem(asm.R1, asm.R2, asm.Word, 8), bpf.Insn{Op: 0xc3, Regs: 0x21, Off: 8, Imm: 0xa1}},
		{asm.CmpXchg.Mem(asm.R1, asm.R2, asm.Word, -4), bpf.Insn{Op: 0xc3, Regs: 0x21, Off: -4, Imm: 0xf1}},
		{asm.LoadAcquire(asm.R1, asm.R2, asm.Byte, 0), bpf.Insn{Op: 0xd3, Regs: 0x21, Imm: 0x100}},
		{asm.StoreRelease(asm.R1, asm.R2, asm.Half, 0), bpf.Insn{Op: 0xcb, Regs: 0x21, Imm: 0x110}},
		{asm.BSwap(asm.R3, asm.Half), bpf.Insn{Op: 0xd7, Regs: 3, Imm: 16}},
		{asm.HostTo(asm.BE, asm.R3, asm.Word), bpf.Insn{Op: 0xdc, Regs: 3, Imm: 32}},
		{asm.FnMapLookupElem.Call(), bpf.Insn{Op: 0x85, Imm: 1}},
	} {
		src, err := convert(asm.Instructions{test.ins})
		if err != nil {
			t.Errorf("%v: %v", test.ins, err)
			continue
		}
		if diff := cmp.Diff([]bpf.Insn{test.want}, src.Program.Insns); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.ins, diff)
		}
	}
}

// TestConvertErrors checks that whatever has no place in a slot is refused.
func TestConvertErrors(t *testing.T) {
	far := asm.Instructions{asm.Ja.Label("end")}
	for range 1 << 15 {
		far = append(far, asm.Mov.Imm(asm.R0, 0))
	}
	far = append(far, asm.Return().WithSymbol("end"))

	for _, test := range []struct {
		name  string
		insns asm.Instructions
		slot  int
		field string
		want  string
		is    error
	}{
		{"invalid opcode", asm.Instructions{{OpCode: asm.InvalidOpCode}}, 0, "opcode", "invalid opcode", nil},
		{"unknown extension", asm.Instructions{{OpCode: 0x1_07}}, 0, "opcode", "no opcode 0x107", nil},
		{"extended load", asm.Instructions{{OpCode: 0x1_61}}, 0, "opcode", "no opcode 0x161", nil},
		{"two offsets", asm.Instructions{{OpCode: asm.SDiv.Op(asm.ImmSource), Offset: 2}}, 0, "off", "offset 2, but 1", nil},
		{"two operations", asm.Instructions{{OpCode: asm.Xchg.OpCode(asm.DWord), Constant: 1}}, 0, "imm", "operation 0x1, but 0xe1", nil},
		{"register", asm.Instructions{{OpCode: 0xb7, Dst: 16}}, 0, "dst", "no register 16", ErrRange},
		{"constant", asm.Instructions{{OpCode: 0xb7, Constant: 1 << 31}}, 0, "imm", "2147483648", ErrRange},
		{"16-bit jump", far, 0, "off", `"end" is 32768 instructions away`, ErrRange},
		{"symbol twice", asm.Instructions{asm.LoadImm(asm.R0, 0, asm.DWord).WithSymbol("a"), asm.Return().WithSymbol("a")}, 2, "symbol", "already", nil},
		{"no target", asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Call.Label("nowhere")}, 1, "imm", `"nowhere" isn't part`, ErrUnsupported},
		{"map by descriptor", asm.Instructions{asm.LoadMapPtr(asm.R1, 3)}, 0, "imm", "file descriptor", ErrUnsupported},
		{"kernel's map", asm.Instructions{withMap(t, asm.LoadMapPtr(asm.R1, 0))}, 0, "imm", "map of the kernel", ErrUnsupported},
		{"kernel's symbol", asm.Instructions{asm.LoadImm(asm.R1, 0, asm.DWord).WithReference("jiffies")}, 0, "imm", `"jiffies"`, ErrUnsupported},
		{"kfunc", asm.Instructions{asm.Instruction{OpCode: 0x85, Src: asm.PseudoKfuncCall, Constant: -1}.WithReference("bpf_do")}, 0, "src", `"bpf_do"`, ErrUnsupported},
		{"helper of Windows", asm.Instructions{{OpCode: 0x85, Constant: 1<<28 | 1}}, 0, "imm", "another platform", ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := convert(test.insns)
			var ce *convertError
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, want a convertError", err)
			}
			if ce.slot != test.slot || ce.field != test.field || !strings.Contains(ce.Error(), test.want) {
				t.Errorf("slot %d, field %s: %v; want slot %d, field %s: %s", ce.slot, ce.field, ce, test.slot, test.field, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v isn't %v", err, test.is)
			}
		})
	}
}

type fd int

func (f fd) FD() int { return int(f) }

func withMap(t *testing.T, ins asm.Instruction) asm.Instruction {
	t.Helper()
	if err := ins.AssociateMap(fd(3)); err != nil {
		t.Fatal(err)
	}
	return ins
}

// FuzzConvert: what cilium has decoded comes out as the same bytes, or not at
// all.
func FuzzConvert(f *testing.F) {
	f.Add([]byte{0x37, 0x01, 0x01, 0x00, 0x02, 0, 0, 0})                            // sdiv
	f.Add([]byte{0x37, 0x01, 0x02, 0x00, 0x02, 0, 0, 0})                            // div with a wrong offset
	f.Add([]byte{0xbf, 0x21, 0x10, 0x00, 0, 0, 0, 0})                               // movsx
	f.Add([]byte{0xdb, 0x21, 0x00, 0x00, 0xf1, 0xff, 0, 0})                         // atomic, unknown bits
	f.Add([]byte{0xe5, 0x00, 0x05, 0x00, 0, 0, 0, 0})                               // may_goto
	f.Add([]byte{0x8d, 0x03, 0x00, 0x00, 0, 0, 0, 0})                               // callx
	f.Add([]byte{0x18, 0x01, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8})             // ldimm64
	f.Add([]byte{0x07, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x95, 1, 1, 1, 1}) // junk, cut off
	f.Fuzz(func(t *testing.T, code []byte) {
		insns, err := decode(t, code)
		if err != nil {
			return
		}
		src, err := convert(insns)
		if (src == nil) == (err == nil) {
			t.Fatalf("src %v and err %v", src, err)
		}
		if err != nil {
			return
		}
		if got := wire(src.Program.Insns); !bytes.Equal(got, code) {
			t.Errorf("\n got % x\nwant % x", got, code)
		}
	})
}
