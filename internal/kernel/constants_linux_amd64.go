package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/bpfjit/bpfjit/abi"
	"golang.org/x/sys/cpu"
)

// ReadConstants finds the constants of the running kernel's JIT, once.
var ReadConstants = sync.OnceValues(func() (*Constants, error) {
	syms, err := ReadSymbols()
	if err != nil {
		return nil, err
	}
	c := &Constants{BMI2: cpu.X86.HasBMI2}
	var ok bool
	if c.CallBase, ok = syms.Addr("__bpf_call_base"); !ok {
		return nil, fmt.Errorf("%w: no symbol __bpf_call_base", ErrUnavailable)
	}
	for _, probe := range []func(*Constants) error{probeReturn, probePercpu, probeTailCall} {
		if err := probe(c); err != nil {
			return nil, err
		}
	}
	c.ReturnThunkName = syms.Name(c.ReturnThunk)
	c.IndirectThunkName = syms.Name(c.IndirectThunk)
	return c, nil
})

// jited loads a program and returns its code and the code's address.
func jited(s *Spec) (code []byte, addr uint64, err error) {
	p, err := Load(s)
	if err != nil {
		return nil, 0, err
	}
	defer p.Close()
	i, err := p.Info()
	if err != nil {
		return nil, 0, err
	}
	if len(i.Addrs) == 0 {
		return nil, 0, fmt.Errorf("%w: no machine code", ErrUnavailable)
	}
	return i.Jited, i.Addrs[0], nil
}

// displacement follows a rel32 that stands at an offset of code.
func displacement(code []byte, addr uint64, at int) uint64 {
	return addr + uint64(at) + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(code[at:]))))
}

// probeReturn reads how "return 0" ends: leave, and a jump or ret.
func probeReturn(c *Constants) error {
	code, addr, err := jited(&Spec{Type: SocketFilter, Insns: trivial})
	if err != nil {
		return err
	}
	c.Endbr = bytes.HasPrefix(code, bytesEndbr)
	switch n := len(code); {
	case n > 6 && code[n-6] == 0xc9 && code[n-5] == 0xe9:
		c.ReturnThunk = displacement(code, addr, n-4)
	case bytes.HasSuffix(code, []byte{0xc9, 0xc3}):
	case bytes.HasSuffix(code, []byte{0xc9, 0xc3, 0xcc}):
		c.StraightLine = true
	default:
		return fmt.Errorf("kernel: unknown epilogue: % x", code)
	}
	return nil
}

// probePercpu reads the offset of a cpu's data from the code of
// get_smp_processor_id, which the verifier inlines.
func probePercpu(c *Constants) error {
	code, _, err := jited(&Spec{Type: SocketFilter, Insns: []abi.Insn{
		{Op: abi.OpCall, Imm: 8},
		{Op: abi.OpExit},
	}})
	if err != nil {
		return err
	}
	// add rax, gs:[disp32]
	if at := bytes.Index(code, []byte{0x65, 0x48, 0x03, 0x04, 0x25}); at >= 0 && at+9 <= len(code) {
		c.PercpuOff = int32(binary.LittleEndian.Uint32(code[at+5:]))
	}
	return nil
}

// probeTailCall reads the layout of prog arrays from an indirect tail call:
//
//	89 d2  39 56 d8(max_entries)  …  48 8b 8c d6 d32(programs)  …
//	48 8b 49 d8(function)  48 83 c1 d8(entry)  jmp rcx, or to a thunk
func probeTailCall(c *Constants) error {
	m, err := NewMap(MapSpec{Type: ProgArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	code, addr, err := jited(&Spec{Type: SocketFilter, Insns: []abi.Insn{
		{Op: 0x61, Regs: abi.Registers(abi.R3, abi.R1)}, // an index that isn't known
		{Op: abi.OpLdImm64, Regs: abi.Registers(abi.R2, abi.Imm64MapFD), Imm: int32(m.fd)},
		{},
		{Op: abi.OpCall, Imm: tailCallHelper},
		{Op: 0xb7},
		{Op: abi.OpExit},
	}})
	if err != nil {
		return err
	}
	size := bytes.Index(code, []byte{0x89, 0xd2, 0x39, 0x56})
	programs := bytes.Index(code, bytesLoadIndirect)
	function := bytes.Index(code, []byte{0x48, 0x8b, 0x49})
	if size < 0 || programs < size || function < programs || function+13 > len(code) {
		return fmt.Errorf("kernel: unknown tail call: % x", code)
	}
	c.MaxEntriesOff = int32(int8(code[size+4]))
	c.ProgramsOff = int32(binary.LittleEndian.Uint32(code[programs+4:]))
	c.FunctionOff = int32(int8(code[function+3]))
	c.TailCallEntry = int32(int8(code[function+7]))
	if code[function+8] == 0xe9 {
		c.IndirectThunk = displacement(code, addr, function+9)
	}
	return nil
}
