package kernel

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/bpfjit/bpfjit/abi"
)

// Map is a map of the kernel.
type Map struct {
	*descriptor
	spec MapSpec
}

// NewMap creates a map.
func NewMap(s MapSpec) (*Map, error) {
	a := mapCreateAttr{
		mapType: uint32(s.Type), keySize: s.KeySize, valueSize: s.ValueSize,
		maxEntries: s.MaxEntries, flags: s.Flags, extra: s.Extra,
	}
	fd, err := bpf(cmdMapCreate, &a)
	if err != nil {
		return nil, fmt.Errorf("kernel: create map: %w", err)
	}
	return &Map{newDescriptor(fd), s}, nil
}

// openMap opens the map with an ID.
func openMap(id uint32) (*Map, error) {
	fd, err := bpf(cmdMapGetFDByID, &idAttr{id: id})
	if err != nil {
		return nil, fmt.Errorf("kernel: map %d: %w", id, err)
	}
	m := &Map{newDescriptor(fd), MapSpec{}}
	var i mapInfo
	if err := info(fd, &i); err != nil {
		m.Close()
		return nil, fmt.Errorf("kernel: map %d: %w", id, err)
	}
	m.spec = MapSpec{Type: MapType(i.mapType), KeySize: i.keySize, ValueSize: i.valueSize,
		MaxEntries: i.maxEntries, Flags: i.flags, Extra: i.extra}
	return m, nil
}

// ID returns the map's number, by which the dump of a program names it.
func (m *Map) ID() (uint32, error) {
	var i mapInfo
	err := info(m.fd, &i)
	return i.id, err
}

func (m *Map) element(cmd uintptr, key, value []byte) error {
	if len(key) != int(m.spec.KeySize) || value != nil && len(value) != int(m.spec.ValueSize) {
		return fmt.Errorf("kernel: map element of %d and %d bytes, want %d and %d",
			len(key), len(value), m.spec.KeySize, m.spec.ValueSize)
	}
	a := mapElemAttr{fd: uint32(m.fd), key: slicePtr(key), value: slicePtr(value)}
	_, err := bpf(cmd, &a)
	runtime.KeepAlive(m)
	return err
}

// Lookup returns the value of key.
func (m *Map) Lookup(key []byte) ([]byte, error) {
	v := make([]byte, m.spec.ValueSize)
	if err := m.element(cmdMapLookup, key, v); err != nil {
		return nil, fmt.Errorf("kernel: look up: %w", err)
	}
	return v, nil
}

// Update sets the value of key.
func (m *Map) Update(key, value []byte) error {
	if err := m.element(cmdMapUpdate, key, value); err != nil {
		return fmt.Errorf("kernel: update: %w", err)
	}
	return nil
}

// Delete removes key.
func (m *Map) Delete(key []byte) error {
	if err := m.element(cmdMapDelete, key, nil); err != nil {
		return fmt.Errorf("kernel: delete: %w", err)
	}
	return nil
}

// SetProgram puts a program into a map of type ProgArray.
func (m *Map) SetProgram(index uint32, p *Program) error {
	return m.Update(binary.LittleEndian.AppendUint32(nil, index), binary.LittleEndian.AppendUint32(nil, uint32(p.fd)))
}

// constant returns what the verifier makes of an ldimm64 of the map: the
// address of the map, or, with kind Imm64MapValue, of the map's first value.
// The dump shows the map's ID instead, so a small program is asked that
// stores the constant into its packet.
func (m *Map) constant(kind uint8) (uint64, error) {
	const packet = 64
	p, err := Load(&Spec{Type: XDP, Insns: []abi.Insn{
		{Op: 0x61, Regs: abi.Registers(abi.R2, abi.R1)},         // r2 = ctx->data
		{Op: 0x61, Regs: abi.Registers(abi.R3, abi.R1), Off: 4}, // r3 = ctx->data_end
		{Op: 0xbf, Regs: abi.Registers(abi.R4, abi.R2)},
		{Op: 0x07, Regs: abi.Registers(abi.R4, 0), Imm: 8},
		{Op: 0x2d, Regs: abi.Registers(abi.R4, abi.R3), Off: 3}, // if r4 > r3 goto exit
		{Op: abi.OpLdImm64, Regs: abi.Registers(abi.R5, kind), Imm: int32(m.fd)},
		{},
		{Op: 0x7b, Regs: abi.Registers(abi.R2, abi.R5)}, // *(u64 *)data = r5
		{Op: 0xb7},
		{Op: abi.OpExit},
	}})
	if err != nil {
		return 0, fmt.Errorf("kernel: address of a map: %w", err)
	}
	defer p.Close()
	r, err := p.Run(RunOptions{Data: make([]byte, packet)})
	if err != nil {
		return 0, fmt.Errorf("kernel: address of a map: %w", err)
	}
	return binary.LittleEndian.Uint64(r.Data), nil
}
