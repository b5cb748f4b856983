//go:build amd64 && !purego

package encoder

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
	"unsafe"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/tables"
)

// TestOffsets pins the offsets in the generator of the assembly to the
// structs.
func TestOffsets(t *testing.T) {
	var (
		m measureJob
		e emitJob
		i abi.Insn
		f tables.Finder
		r tables.Row
	)
	want := map[string]uintptr{
		"jobInsns": unsafe.Offsetof(m.insns), "jobRows": unsafe.Offsetof(m.rows), "jobOut": unsafe.Offsetof(m.pos),
		"jobMarks": unsafe.Offsetof(m.marks), "jobNext": unsafe.Offsetof(m.next), "jobStop": unsafe.Offsetof(m.stop),
		"jobCount": unsafe.Offsetof(m.count), "jobTable": unsafe.Offsetof(m.table),

		"measureFirst": unsafe.Offsetof(m.first), "measureFinders": unsafe.Offsetof(m.finders),
		"measureIndex": unsafe.Offsetof(m.index), "measureClass": unsafe.Offsetof(m.class),

		"emitSteps": unsafe.Offsetof(e.steps), "emitBits": unsafe.Offsetof(e.bits), "emitNumRows": unsafe.Offsetof(e.numRows),
		"emitCode": unsafe.Offsetof(e.code), "emitRoom": unsafe.Offsetof(e.room), "emitAt": unsafe.Offsetof(e.at),
		"emitMark": unsafe.Offsetof(e.mark), "emitGaps": unsafe.Offsetof(e.numGaps),

		"insnOp": unsafe.Offsetof(i.Op), "insnRegs": unsafe.Offsetof(i.Regs), "insnOff": unsafe.Offsetof(i.Off),

		"finderMask": unsafe.Offsetof(f.Mask), "finderMul": unsafe.Offsetof(f.Mul),
		"finderLast": unsafe.Offsetof(f.Last), "finderBase": unsafe.Offsetof(f.Base),

		"stepHead": unsafe.Offsetof(r.Head), "stepDst": unsafe.Offsetof(r.Dst), "stepSrc": unsafe.Offsetof(r.Src),
		"stepDisp": unsafe.Offsetof(r.Disp), "stepImm": unsafe.Offsetof(r.Imm), "stepLen": unsafe.Offsetof(r.Len),

		"rowAdds": unsafe.Offsetof(r.Adds), "rowMarks": unsafe.Offsetof(r.Adds) + 4,
		"rowFirst": unsafe.Offsetof(r.First), "rowMore": unsafe.Offsetof(r.More),

		"classBits": tables.ClassBits,
	}
	sizes := map[string]uintptr{
		"finderShift": unsafe.Sizeof(f), "stepShift": unsafe.Sizeof(r.Step), "rowShift": unsafe.Sizeof(r),
	}
	// Both jobs begin alike.
	for _, pair := range [][2]uintptr{
		{unsafe.Offsetof(m.insns), unsafe.Offsetof(e.insns)}, {unsafe.Offsetof(m.rows), unsafe.Offsetof(e.rows)},
		{unsafe.Offsetof(m.pos), unsafe.Offsetof(e.ends)}, {unsafe.Offsetof(m.marks), unsafe.Offsetof(e.gaps)},
		{unsafe.Offsetof(m.next), unsafe.Offsetof(e.next)}, {unsafe.Offsetof(m.stop), unsafe.Offsetof(e.stop)},
		{unsafe.Offsetof(m.count), unsafe.Offsetof(e.count)}, {unsafe.Offsetof(m.table), unsafe.Offsetof(e.table)},
		{unsafe.Sizeof(m), 12 * 8}, {unsafe.Sizeof(e), 16 * 8}, // as the stubs have them
		{unsafe.Offsetof(r.Step), 0}, {unsafe.Sizeof(i), abi.InsnSize},
	} {
		if pair[0] != pair[1] {
			t.Errorf("offsets or sizes differ: %d", pair)
		}
	}
	got := constants(t, "../gen/asm/encoder/encoder_asm.go")
	for name, v := range got {
		if size, ok := sizes[name]; ok && 1<<v != size {
			t.Errorf("%s is %d, the size is %d", name, v, size)
		} else if w, known := want[name]; !ok && (!known || v != w) {
			t.Errorf("%s is %d, want %d", name, v, w)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("the generator has no %s", name)
		}
	}
}

// constants returns the constants of a Go file that are plain numbers.
func constants(t *testing.T, file string) map[string]uintptr {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]uintptr{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s isn't a number", v.Names[0])
			}
			n, err := strconv.ParseUint(lit.Value, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			values[v.Names[0].Name] = uintptr(n)
		}
	}
	return values
}

// TestNumbersOfErrors compares what emitAVO returns with the names for it.
func TestNumbersOfErrors(t *testing.T) {
	if got := [...]int{noRoom, noRow, noGap}; got != [...]int{-1, -2, -3} {
		t.Errorf("the assembly returns -1, -2, -3 for these, not %d", got)
	}
}
