package kernel

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
)

// Functions returns the program's functions, the main program first, with
// everything restored that the dump hides (see Function.Insns).
//
// Of a blinded program (bpf_jit_harden) that has several functions the kernel
// shows the instructions before blinding, so Insns and Jited don't belong
// together.
func (p *Program) Functions() ([]Function, error) {
	i, err := p.Info()
	if err != nil {
		return nil, err
	}
	c, err := ReadConstants()
	if err != nil {
		return nil, err
	}
	syms, err := ReadSymbols()
	if err != nil {
		return nil, err
	}
	return functions(i, c, syms, mapConstants{}, p.spec)
}

// functions does it, from a dump.
func functions(i *Info, c *Constants, syms *Symbols, maps mapConstants, s *Spec) ([]Function, error) {
	fs, err := split(i)
	if err != nil {
		return nil, err
	}
	if s.Debug {
		starts := debugStarts(s)
		for k := range fs {
			if k < len(i.Funcs) && int(i.Funcs[k].TypeID)-btfFirstFunc < len(starts) {
				fs[k].Name = FuncName(starts[i.Funcs[k].TypeID-btfFirstFunc])
			}
		}
	}
	for k := range fs {
		f := &fs[k]
		if f.Params, err = ParsePrologue(f.Jited, f.Insns, k > 0); err != nil {
			return nil, fmt.Errorf("function %d: %w", k, err)
		}
	}
	cutCallback(fs)
	for k := range fs {
		f := &fs[k]
		if err := f.restore(fs, i, c); err != nil {
			return nil, fmt.Errorf("function %d: %w", k, err)
		}
		if err := f.restoreMaps(maps); err != nil {
			return nil, fmt.Errorf("function %d: %w", k, err)
		}
		if f.Arena {
			if f.ArenaUser, err = arenaUser(i); err != nil {
				return nil, fmt.Errorf("function %d: %w", k, err)
			}
		}
		for n := range f.Calls {
			if call := &f.Calls[n]; call.Kind != abi.CallLocal {
				call.Name = syms.Name(call.Target)
			}
		}
	}
	return fs, nil
}

// mapConstants remembers what ldimm64 of a map, by ID and kind, becomes.
type mapConstants map[[2]uint32]uint64

func (mc mapConstants) get(id uint32, kind uint8) (uint64, error) {
	key := [2]uint32{id, uint32(kind)}
	if v, ok := mc[key]; ok {
		return v, nil
	}
	m, err := openMap(id)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	v, err := m.constant(kind)
	if err == nil {
		mc[key] = v
	}
	return v, err
}

// restoreMaps replaces the IDs of maps by their addresses.
func (f *Function) restoreMaps(maps mapConstants) error {
	for s := 0; s+1 < len(f.Insns); s++ {
		in := f.Insns[s]
		if in.Op != abi.OpLdImm64 {
			continue
		}
		switch kind := in.Src(); kind {
		case abi.Imm64MapFD, abi.Imm64MapValue:
			v, err := maps.get(uint32(in.Imm), kind)
			if err != nil {
				return err
			}
			if kind == abi.Imm64MapValue {
				v += uint64(uint32(f.Insns[s+1].Imm))
			}
			setConstant(f.Insns[s:], v)
		}
		s++
	}
	return nil
}

// arenaUser returns where user space has the arena of a program, if its map
// was created with an address.
func arenaUser(i *Info) (uint64, error) {
	for _, id := range i.MapIDs {
		m, err := openMap(id)
		if err != nil {
			return 0, err
		}
		s := m.spec
		m.Close()
		if s.Type == ArenaMap {
			return s.Extra, nil
		}
	}
	return 0, nil
}
