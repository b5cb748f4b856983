package blind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/golden"
	"github.com/bpfjit/bpfjit/internal/testprog"
	"github.com/bpfjit/bpfjit/lower"
	"github.com/bpfjit/bpfjit/tables"
	"github.com/google/go-cmp/cmp"
)

// TestRules writes down what becomes of every form that is rewritten, with
// the random number 0x01000000, and lists all others by name.
func TestRules(t *testing.T) {
	var got strings.Builder
	var kept []string
	for f := tables.Form(1); f < tables.NumForms; f++ {
		form := &tables.Forms[f]
		if f == tables.FormLdSecond {
			continue
		}
		in := bpf.Insn{Op: form.Op, Regs: abi.Registers(uint8(form.Dst.Value), uint8(form.Src.Value)), Off: int16(form.Off.Value), Imm: form.Imm.Value}
		if !form.Dst.Fixed() {
			in.Regs = abi.Registers(3, in.Src())
		}
		if !form.Src.Fixed() {
			in.Regs = abi.Registers(in.Dst(), 4)
		}
		if form.Off.Use == tables.UseDisplacement {
			in.Off = 8
		}
		if form.Imm.Use == tables.UseConstant {
			in.Imm = 5
		}
		p := &bpf.Program{Insns: []bpf.Insn{in}}
		if form.Op == abi.OpLdImm64 {
			p.Insns = append(p.Insns, bpf.Insn{Imm: 6})
		}
		np, err := Rewrite(p, &words{next: func() uint32 { return 1 << 24 }})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Equal(np.Insns, p.Insns) {
			kept = append(kept, form.Name)
			continue
		}
		fmt.Fprintf(&got, "%s: %s\n", form.Name, p.Text(0))
		for i := range np.Insns {
			fmt.Fprintf(&got, "\t%s\n", np.Text(i))
		}
	}
	fmt.Fprintf(&got, "\nKept:\n%s\n", strings.Join(kept, "\n"))
	golden.Compare(t, "testdata/rules.txt", got.String())
}

// TestRewrite shows what a rewrite does to a program as a whole.
func TestRewrite(t *testing.T) {
	var got strings.Builder
	for _, tt := range []struct{ name, text string }{
		{"nothing to hide", "r1 += r2\nexit"},
		{"moves of 0", "r1 = 0\nw2 = 0\nr3 = 1\nexit"},
		{"jumps from both sides", "if r1 > 7 goto +2\nr0 = 1\ngoto +1\nif w1 s< -1 goto -3\nexit"},
		{"a jump to itself", "if r1 & 3 goto -1\nexit"},
		{"64-bit constants", "r1 = 0x1122334455667788 ll\nr2 = 0 ll\nr11 = 5 ll\nif r1 == r2 goto -7\nexit"},
		{"AX", "r11 = 5\nr11 += 6\nr1 += r11\nif r11 == 3 goto +0\n*(u64 *)(r11 + 0) = 9\nexit"},
		{"functions", "call pc+3\nr1 = func pc+2\ncall 5\nexit\nr0 = 7\nexit"},
		{"far jumps", "gotol +1\nr0 = 1\ngotol -3"},
		{"what stays", "r1 <<= 5\nw1 s>>= 5\nr1 = -r1\nr1 = be16 r1\nr2 = *(u8 *)(r1 + 77)\nlock *(u64 *)(r1 + 8) += r2\nmay_goto +0\nexit"},
	} {
		p := testprog.Parse(t, tt.text)
		var r Result
		random := rand.New(rand.NewPCG(1, 2))
		if err := r.Rewrite(p, &words{next: func() uint32 { return random.Uint32N(1 << 16) }}); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		fmt.Fprintf(&got, "%s: %d constants, index %v\n\n", tt.name, r.Constants, r.Index)
		p.List(&got, bpf.ListOptions{Numbers: true})
		got.WriteByte('\n')
		r.Program.List(&got, bpf.ListOptions{Numbers: true, Marks: true})
		got.WriteString("\n----\n")
	}
	golden.Compare(t, "testdata/rewrite.txt", got.String())
}

// TestRandom compares random programs of both dialects, some of them patched
// before, with the reference, and looks after what must not happen.
func TestRandom(t *testing.T) {
	seed := testprog.Seed(t)
	var r Result // used again, so that nothing of the last program may matter
	for i := range uint64(2000) {
		random := testprog.Rand(seed, i)
		dialect := bpf.Dialect(i % 2)
		p := randomProgram(random, dialect, 1+random.IntN(60))
		if i%100 == 0 {
			p = randomProgram(random, dialect, 5*block)
		}
		if err := bpf.Check(p, dialect); err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		if i%3 == 0 {
			p.Flags, p.Origin = make([]bpf.Flag, len(p.Insns)), make([]int32, len(p.Insns))
			for k := range p.Flags {
				p.Flags[k], p.Origin[k] = bpf.Flag(random.IntN(4)), random.Int32N(50)
				if k > 0 && p.Insns[k-1].Op == abi.OpLdImm64 {
					p.Flags[k] = p.Flags[k-1]
				}
			}
		}
		before := clone(p)
		a, b := rand.New(rand.NewPCG(seed, ^i)), rand.New(rand.NewPCG(seed, ^i))
		reader := &words{next: a.Uint32}
		if err := r.Rewrite(p, reader); err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		drew := 0
		np, index := reference(p, func() uint32 { drew++; return b.Uint32() })
		if !same(np, &r.Program) {
			t.Fatalf("program %d (-reference +got):\n%s", i, cmp.Diff(np, &r.Program))
		}
		if !slices.Equal(index, r.Index) {
			t.Fatalf("program %d: index (-reference +got):\n%s", i, cmp.Diff(index, r.Index))
		}
		if !same(before, p) {
			t.Fatalf("program %d changed:\n%s", i, cmp.Diff(before, p))
		}
		if reader.read != 4*drew {
			t.Fatalf("program %d: read %d bytes for %d numbers", i, reader.read, drew)
		}
		if r.Constants != drew {
			t.Fatalf("program %d: %d constants, %d numbers", i, r.Constants, drew)
		}
		again, err := Rewrite(&r.Program, iotest.ErrReader(errors.New("read")))
		if err != nil {
			t.Fatalf("program %d: again: %v", i, err)
		}
		if !same(&r.Program, again) {
			t.Fatalf("program %d rewritten again (-once +twice):\n%s", i, cmp.Diff(&r.Program, again))
		}
	}
}

// TestPairAcrossBlocks puts 64-bit constants wherever a block may end.
func TestPairAcrossBlocks(t *testing.T) {
	for shift := range 4 {
		p := &bpf.Program{Insns: slices.Repeat(testprog.Parse(t, "r1 += 1").Insns, shift)}
		p.Insns = append(p.Insns, slices.Repeat(testprog.Parse(t, "r1 = 0x0102030405060708 ll").Insns, 2*block)...)
		a, b := rand.New(rand.NewPCG(3, 4)), rand.New(rand.NewPCG(3, 4))
		got, err := Rewrite(p, &words{next: a.Uint32})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := reference(p, b.Uint32)
		if !same(want, got) {
			t.Errorf("%d slots before (-reference +got):\n%s", shift, cmp.Diff(want, got))
		}
	}
}

// TestReaders wants readers to be read to the byte, in whatever portions they
// give, and their errors to come through.
func TestReaders(t *testing.T) {
	p := &bpf.Program{Insns: slices.Repeat(testprog.Parse(t, "r1 += 5\nr2 = 0\nr3 = r1").Insns, 3000)}
	numbers := make([]uint32, 3000)
	for i := range numbers {
		numbers[i] = uint32(i) * 0x01000193
	}
	want, err := Rewrite(p, list(numbers))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(numbers, drawn(want.Insns)); d != "" {
		t.Errorf("numbers (-given +used):\n%s", d)
	}
	for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		var raw bytes.Buffer
		if _, err := io.Copy(&raw, list(numbers)); err != nil {
			t.Fatal(err)
		}
		got, err := Rewrite(p, wrap(&raw))
		if err != nil || !same(want, got) {
			t.Errorf("error %v, difference:\n%s", err, cmp.Diff(want, got))
		}
	}
	broken := errors.New("broken")
	for _, tt := range []struct {
		reader io.Reader
		want   error
	}{
		{list(numbers[1:]), io.ErrUnexpectedEOF},
		{list(nil), io.EOF},
		{iotest.ErrReader(broken), broken},
		{io.MultiReader(list(numbers[:2000]), iotest.ErrReader(broken)), broken},
	} {
		np, err := Rewrite(p, tt.reader)
		if np != nil || !errors.Is(err, tt.want) {
			t.Errorf("error %v, want %v; program %v", err, tt.want, np != nil)
		}
	}
	if _, err := Rewrite(testprog.Parse(t, "r1 = 0\nexit"), iotest.ErrReader(broken)); err != nil {
		t.Errorf("a program without constants: %v", err)
	}
}

// TestOwnRandomness asks for numbers that differ: between runs, and within
// one. Among 8,000 numbers of 32 bits four come twice once in 10^10 runs.
func TestOwnRandomness(t *testing.T) {
	p := &bpf.Program{Insns: slices.Repeat(testprog.Parse(t, "r1 += 5").Insns, 4000)}
	seen, twice := map[uint32]bool{}, 0
	for range 2 {
		np, err := Rewrite(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range drawn(np.Insns) {
			if seen[n] {
				twice++
			}
			seen[n] = true
		}
	}
	if twice > 3 || len(seen)+twice != 8000 {
		t.Errorf("%d numbers came twice, %d did not", twice, len(seen))
	}
}

// TestSource takes numbers by turns from a reader and from the generator: what
// that gives is its own, and given once.
func TestSource(t *testing.T) {
	var s source
	seen := map[uint64]bool{}
	for n := range block + 1 {
		reader := &words{next: func() uint32 { return uint32(n) }}
		for _, r := range []io.Reader{reader, nil} {
			numbers, err := s.take(r, n)
			if err != nil || len(numbers) != n*numberBytes {
				t.Fatalf("%d numbers: %d bytes, error %v", n, len(numbers), err)
			}
			for ; r == nil && len(numbers) >= 8; numbers = numbers[8:] {
				v := binary.LittleEndian.Uint64(numbers)
				if seen[v] || v>>32 == uint64(n) {
					t.Fatalf("%d numbers: %#x is not the generator's, or comes again", n, v)
				}
				seen[v] = true
			}
		}
		if reader.read != n*numberBytes {
			t.Errorf("%d numbers: read %d bytes", n, reader.read)
		}
	}
}

// TestLowered rewrites what lower.Lower makes. What was inserted stays, and
// AX is free wherever a constant is hidden: a write of it and its last use
// have nothing between them that is rewritten.
func TestLowered(t *testing.T) {
	seed := testprog.Seed(t)
	for i := range uint64(300) {
		source := randomProgram(testprog.Rand(seed, i), bpf.Source, 40)
		p, err := lower.Lower(source)
		if err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		var r Result
		if err := r.Rewrite(p, nil); err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		live := liveAX(p)
		for slot, in := range p.Insns {
			now := r.Program.Insns[r.Index[slot+1]-1]
			hidden := r.Index[slot+1]-r.Index[slot] > 1
			switch {
			case hidden && live[slot]:
				t.Errorf("program %d: slot %d (%s) is rewritten where AX is in use", i, slot, p.Text(slot))
			case p.Flags[slot]&bpf.Inserted != 0 && (hidden || now.Op != in.Op || now.Regs != in.Regs):
				t.Errorf("program %d: slot %d (%s) was inserted and became %s", i, slot, p.Text(slot), bpf.Text(now))
			}
			if from := r.Program.Source(int(r.Index[slot])); from != p.Source(slot) {
				t.Errorf("program %d: slot %d comes from %d, want %d", i, slot, from, p.Source(slot))
			}
		}
	}
}

// liveAX says of each slot whether AX is read behind it before it is written.
func liveAX(p *bpf.Program) []bool {
	n := len(p.Insns)
	before := make([]bool, n+1) // in front of the slot
	behind := make([]bool, n)
	for changed := true; changed; {
		changed = false
		for i := n - 1; i >= 0; i-- {
			in := p.Insns[i]
			f, _ := tables.FormOf(in.Op, in.Regs, in.Off, in.Imm)
			form := &tables.Forms[f]
			out := false
			if form.Flow == tables.FlowNext || form.Flow == tables.FlowBranch || form.Flow == tables.FlowCall {
				out = before[i+1]
			}
			if form.Flow == tables.FlowBranch || form.Flow == tables.FlowJump {
				d, _ := bpf.Distance(in)
				out = out || before[i+1+int(d)]
			}
			reads := form.Dst.Reads() && in.Dst() == abi.AX || form.Src.Reads() && in.Src() == abi.AX
			writes := form.Dst.Writes() && in.Dst() == abi.AX || form.Src.Writes() && in.Src() == abi.AX
			ahead := reads || out && !writes
			changed = changed || behind[i] != out || before[i] != ahead
			behind[i], before[i] = out, ahead
		}
	}
	return behind
}

func TestEmpty(t *testing.T) {
	np, err := Rewrite(&bpf.Program{}, nil)
	if err != nil || len(np.Insns) != 0 {
		t.Errorf("%v, %v", np, err)
	}
}

// TestInPlace: a program isn't blinded in its own memory.
func TestInPlace(t *testing.T) {
	var r Result
	if err := r.Rewrite(&bpf.Program{Insns: []bpf.Insn{{Op: 0xb7, Imm: 5}, {Op: abi.OpExit}}}, nil); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.Rewrite(&r.Program, nil)
}
