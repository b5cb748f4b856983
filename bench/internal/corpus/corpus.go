package corpus

import (
	"bufio"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/bpf"
	"github.com/bpfjit/bpfjit/internal/mixed"
)

// Program is a program to compile.
type Program struct {
	Name  string
	Insns []abi.Insn
}

// Slots adds up the slots of programs.
func Slots(programs []Program) (n int) {
	for _, p := range programs {
		n += len(p.Insns)
	}
	return n
}

// root is the repository, seen from the directory of a test in bench.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if filepath.Base(dir) == "bench" {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				return filepath.Dir(dir), nil
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("corpus: not within the bench module")
		}
		dir = up
	}
}

// Kernels returns the eight programs of testdata/kernels. Their argument is a
// buffer of 2048 bytes.
func Kernels() ([]Program, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "testdata", "kernels", "k*.o"))
	if err != nil {
		return nil, err
	}
	var programs []Program
	for _, file := range files {
		if strings.HasSuffix(file, ".xdp.o") {
			continue // the build for a live kernel
		}
		insns, err := object(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		programs = append(programs, Program{strings.TrimSuffix(filepath.Base(file), ".o"), insns})
	}
	if len(programs) == 0 {
		return nil, fmt.Errorf("no objects in testdata/kernels: %w", fs.ErrNotExist)
	}
	return programs, nil
}

// object reads section "prog" of an object and the functions of ".text" that
// it calls. Kernels have no maps and no data, so calls are all there is to
// relocate.
func object(file string) ([]abi.Insn, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	main, text := f.Section("prog"), f.Section(".text")
	if main == nil || text == nil {
		return nil, errors.New("no section prog")
	}
	code, err := main.Data()
	if err != nil {
		return nil, err
	}
	entry := len(code) / abi.InsnSize
	functions, err := text.Data()
	if err != nil {
		return nil, err
	}
	insns, err := bpf.Decode(append(code[:len(code):len(code)], functions...))
	if err != nil {
		return nil, err
	}
	if rel := f.Section(".relprog"); rel != nil {
		records, err := rel.Data()
		if err != nil {
			return nil, err
		}
		symbols, err := f.Symbols()
		if err != nil {
			return nil, err
		}
		for ; len(records) >= 16; records = records[16:] {
			at := int(binary.LittleEndian.Uint64(records)) / abi.InsnSize
			symbol := binary.LittleEndian.Uint64(records[8:]) >> 32
			if symbol == 0 || symbol > uint64(len(symbols)) || at >= entry || insns[at].Op != abi.OpCall {
				return nil, fmt.Errorf("slot %d: not a relocation of a call", at)
			}
			// The immediate counts slots from the symbol, less one.
			target := entry + int(symbols[symbol-1].Value)/abi.InsnSize + int(insns[at].Imm) + 1
			insns[at].Imm = int32(target - at - 1)
		}
	}
	return insns, nil
}

// Shared returns the real programs of ../shared beside the repository. The
// error wraps fs.ErrNotExist where they are missing. Programs with the packet
// loads of classic BPF, LD_ABS and LD_IND, are left out and named.
func Shared() (programs []Program, left []string, err error) {
	dir, err := root()
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(filepath.Join(filepath.Dir(dir), "shared", "bench", "corpus.jsonl.gz"))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, nil, err
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var row struct {
			Name string `json:"name"`
			Hex  string `json:"insns_hex"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return nil, nil, err
		}
		code, err := hex.DecodeString(row.Hex)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", row.Name, err)
		}
		insns, err := bpf.Decode(code)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", row.Name, err)
		}
		if packetLoads(insns) {
			left = append(left, row.Name)
			continue
		}
		programs = append(programs, Program{row.Name, insns})
	}
	return programs, left, lines.Err()
}

// packetLoads reports whether a program has LD_ABS or LD_IND.
func packetLoads(insns []abi.Insn) bool {
	for i := 0; i < len(insns); i++ {
		switch op := insns[i].Op; {
		case op == abi.OpLdImm64:
			i++
		case op&abi.ClassMask == abi.ClassLD:
			return true
		}
	}
	return false
}

// Generated returns n programs of a number of slots each, with the opcode
// frequencies of real programs.
func Generated(n, slots int) []Program {
	mix := mixed.Real()
	programs := make([]Program, n)
	for i := range programs {
		programs[i] = Program{fmt.Sprintf("generated %d", i), mix.Program(uint64(i), slots)}
	}
	return programs
}
