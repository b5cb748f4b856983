package bpfjit

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// TestNames: names that come with a program show up in errors and texts, but
// can't command a terminal or make lines.
func TestNames(t *testing.T) {
	const evil = "\x1b[31mevil\nforged"
	refused := asm.Instructions{
		asm.Instruction{OpCode: asm.Mov.Op(asm.ImmSource), Dst: 10}.WithSymbol(evil).WithSource(asm.Comment(evil)),
		asm.LoadMapPtr(asm.R1, 0).WithReference(evil),
		asm.Return(),
	}
	src, err := Convert(refused)
	if err != nil {
		t.Fatal(err)
	}
	several := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{evil: {Name: evil}, "b": {}}}
	_, ambiguous := SourceOf(several, "")
	_, unknown := SourceOf(several, "c")
	several.Programs[evil].Instructions = asm.Instructions{asm.Ja.Label("nowhere")}
	_, broken := SourceOf(several, evil)
	_, noMap := CompileSource(src, nil)
	src.Maps, src.Program.Insns = nil, src.Program.Insns[:1]
	_, unchecked := CompileSource(src, nil)
	endless, err := Compile(asm.Instructions{asm.Ja.Label(evil).WithSymbol(evil)}, &Options{Name: evil, Engine: EngineInterpreter, Budget: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	_, spent := endless.Run(nil)
	_, _, typeless := endless.RunPacket(nil)
	var listing strings.Builder
	if err := endless.Disassemble(&listing); err != nil {
		t.Fatal(err)
	}
	u8 := &btf.Int{Name: "unsigned char", Size: 1}
	for what, text := range map[string]string{
		"several":   fmt.Sprint(ambiguous),
		"unknown":   fmt.Sprint(unknown),
		"broken":    fmt.Sprint(broken),
		"no map":    fmt.Sprint(noMap),
		"unchecked": fmt.Sprint(unchecked),
		"spent":     fmt.Sprint(spent),
		"no type":   fmt.Sprint(typeless),
		"read":      readError{errors.New(evil)}.Error(),
		"long":      strings.ReplaceAll(fmt.Sprintf("%+v", unchecked), "\n", " "),
		"listing":   strings.ReplaceAll(listing.String(), "\n", " "),
		"map":       MapRef{Name: evil, Value: true}.String(),
		"line":      Line{File: evil, Number: 1}.String(),
		"member":    formatValue(&btf.Struct{Size: 1, Members: []btf.Member{{Name: evil, Type: u8}}}, []byte{1}),
		"enum":      formatValue(&btf.Enum{Size: 1, Values: []btf.EnumValue{{Name: evil, Value: 1}}}, []byte{1}),
	} {
		if strings.ContainsFunc(text, unicode.IsControl) || !strings.Contains(text, `\x1b[31mevil\nforged`) {
			t.Errorf("%s: %q", what, text)
		}
	}
}

// TestNamesKept: what can't be printed is still what things are called.
func TestNamesKept(t *testing.T) {
	const evil = "\x1bevil"
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{evil: {Name: evil, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}},
		Programs: map[string]*ebpf.ProgramSpec{evil: {Name: evil, Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, 0).WithReference(evil), asm.Mov.Imm(asm.R0, 5), asm.Return(),
		}}},
	}
	c, err := LoadCollection(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := c.Programs[evil]
	if p == nil || p.Map(evil) == nil || p.Map(evil).Name() != evil || p.Source().Name != evil {
		t.Fatal("isn't found by its name")
	}
	if r0, err := p.Run(nil); r0 != 5 || err != nil {
		t.Errorf("%d, %v", r0, err)
	}
	if want := `"\x1bevil"`; p.Name() != want {
		t.Errorf("is called %s, want %s", p.Name(), want)
	}
}
