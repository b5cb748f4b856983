package helpers

import (
	"fmt"

	"github.com/bpfjit/bpfjit/abi"
	"github.com/bpfjit/bpfjit/maps"
)

// HandleError reports that a helper was given something else than a map. It
// wraps abi.ErrFault.
type HandleError struct {
	Value uint64 // of the register
}

func (e *HandleError) Error() string {
	return fmt.Sprintf("%v: %#x is no map", abi.ErrFault, e.Value)
}

// Unwrap returns abi.ErrFault.
func (e *HandleError) Unwrap() error { return abi.ErrFault }

// entry finds the map and the key of a call.
func entry(e abi.Env, handle, keyAddr uint64) (m abi.Map, key []byte, err error) {
	if m = e.Map(handle); m == nil {
		return nil, nil, &HandleError{handle}
	}
	if key, err = e.Bytes(keyAddr, uint64(m.KeySize())); err != nil {
		return nil, nil, fmt.Errorf("the key: %w", err)
	}
	return m, key, nil
}

// readOnly reports whether programs must not change a map.
func readOnly(m abi.Map) bool {
	s, ok := m.(interface{ Spec() maps.Spec })
	return ok && s.Spec().Flags&maps.FlagReadOnlyProg != 0
}

// void *bpf_map_lookup_elem(map, key): the address of the value, or 0.
func mapLookupElem(e abi.Env, r1, r2, _, _, _ uint64) (uint64, error) {
	m, key, err := entry(e, r1, r2)
	if err != nil {
		return 0, err
	}
	addr, _ := m.Lookup(key)
	return addr, nil
}

// long bpf_map_update_elem(map, key, value, flags): 0 or an error number.
func mapUpdateElem(e abi.Env, r1, r2, r3, r4, _ uint64) (uint64, error) {
	m, key, err := entry(e, r1, r2)
	if err != nil {
		return 0, err
	}
	value, err := e.Bytes(r3, uint64(m.ValueSize()))
	if err != nil {
		return 0, fmt.Errorf("the value: %w", err)
	}
	if readOnly(m) {
		return abi.EPERM.R0(), nil
	}
	return uint64(m.Update(key, value, r4)), nil
}

// long bpf_map_delete_elem(map, key): 0 or an error number.
func mapDeleteElem(e abi.Env, r1, r2, _, _, _ uint64) (uint64, error) {
	m, key, err := entry(e, r1, r2)
	if err != nil {
		return 0, err
	}
	if readOnly(m) {
		return abi.EPERM.R0(), nil
	}
	return uint64(m.Delete(key)), nil
}
